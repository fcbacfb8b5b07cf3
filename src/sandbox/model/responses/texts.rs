//! The texts that the simulated models write. A text is a pure function of the request, so that a test can
//! check that the right text reached the right lot in the right language.

use crate::sandbox::model::ids;

const ZONES: [&str; 6] = [
    "front bumper and hood",
    "rear bumper and tailgate",
    "left front door and fender",
    "right rear quarter panel",
    "windshield and roof",
    "left side of the vehicle",
];
const KINDS: [&str; 5] = ["dents", "scratches", "cracks", "deformation", "broken glass"];
const DEGREES: [&str; 4] = ["light", "moderate", "considerable", "severe"];
const CONCLUSIONS: [&str; 4] = [
    "The airbags appear to be intact.",
    "The wheels and the tires show normal wear.",
    "The engine could not be assessed from the material.",
    "An inspection of the frame is recommended before repair.",
];

/// The description of a lot with this text and these image URLs, in their order. `text` is all `input_text`
/// parts of the request, joined by line breaks.
pub fn expected_description(text: &str, images: &[&str]) -> String {
    let hash = ids::hex(&[&["description", text][..], images].concat());
    let pick = |list: &[&'static str], salt: &str| -> &'static str {
        let count = u64::try_from(list.len()).unwrap_or(1);
        let chosen = usize::try_from(ids::number(&[salt, &hash]) % count).unwrap_or(0);
        list[chosen]
    };
    let about = match excerpt(text) {
        excerpt if excerpt.is_empty() => "The lot came without a description of its own.".to_owned(),
        excerpt => format!("The vehicle was described as follows: \"{excerpt}\"."),
    };
    let seen = match images.len() {
        0 => "No image was supplied.".to_owned(),
        1 => format!("The assessment rests on 1 image: {}.", names(images)),
        count => format!("The assessment rests on {count} images: {}.", names(images)),
    };
    format!(
        "{about} {seen}\n\nThe visible damage lies at the {}, with {} of {} extent. {}\n\nReference {}.",
        pick(&ZONES, "zone"),
        pick(&KINDS, "kind"),
        pick(&DEGREES, "degree"),
        pick(&CONCLUSIONS, "verdict"),
        &hash[..12],
    )
}

/// The translation of a text into the language with this tag.
pub fn expected_translation(text: &str, language: &str) -> String {
    let hash = ids::hex(&["translation", language, text]);
    let column = match language.split('-').next().unwrap_or(language) {
        "ru" => Some(1),
        "de" => Some(2),
        "fr" => Some(3),
        "es" => Some(4),
        "pl" => Some(5),
        _ => None,
    };
    let words = match column {
        Some(column) => replace_words(text, column),
        None => text.to_owned(),
    };
    format!("[{language}] {words} ({})", &hash[..8])
}

/// Words in English, Russian, German, French, Spanish and Polish.
const WORDS: [[&str; 6]; 16] = [
    ["the", "этот", "das", "le", "el", "ten"],
    [
        "vehicle",
        "автомобиль",
        "Fahrzeug",
        "véhicule",
        "vehículo",
        "pojazd",
    ],
    [
        "damage",
        "повреждение",
        "Schaden",
        "dommage",
        "daño",
        "uszkodzenie",
    ],
    ["front", "передний", "vorne", "avant", "delantero", "przód"],
    ["rear", "задний", "hinten", "arrière", "trasero", "tył"],
    ["left", "левый", "links", "gauche", "izquierdo", "lewy"],
    ["right", "правый", "rechts", "droit", "derecho", "prawy"],
    ["door", "дверь", "Tür", "porte", "puerta", "drzwi"],
    [
        "bumper",
        "бампер",
        "Stoßfänger",
        "pare-chocs",
        "parachoques",
        "zderzak",
    ],
    ["hood", "капот", "Motorhaube", "capot", "capó", "maska"],
    ["roof", "крыша", "Dach", "toit", "techo", "dach"],
    ["wheels", "колёса", "Räder", "roues", "ruedas", "koła"],
    ["engine", "двигатель", "Motor", "moteur", "motor", "silnik"],
    ["image", "фотография", "Bild", "image", "imagen", "zdjęcie"],
    ["images", "фотографии", "Bilder", "images", "imágenes", "zdjęcia"],
    ["and", "и", "und", "et", "y", "i"],
];

fn replace_words(text: &str, column: usize) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut word = String::new();
    let put = |word: &mut String, out: &mut String| {
        let lower = word.to_lowercase();
        match WORDS.iter().find(|row| row[0] == lower) {
            Some(row) => out.push_str(row[column]),
            None => out.push_str(word),
        }
        word.clear();
    };
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            word.push(letter);
        } else {
            put(&mut word, &mut out);
            out.push(letter);
        }
    }
    put(&mut word, &mut out);
    out
}

/// The start of a text, without line breaks and double quotes.
fn excerpt(text: &str) -> String {
    let start = text.char_indices().nth(400).map_or(text, |(end, _)| &text[..end]);
    let clean = start
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('"', "'");
    let short = clean.chars().take(160).collect::<String>();
    short.trim_end_matches(['.', ' ']).to_owned()
}

fn names(images: &[&str]) -> String {
    const SHOWN: usize = 8;
    let mut list = images
        .iter()
        .take(SHOWN)
        .map(|url| file_name(url))
        .collect::<Vec<_>>()
        .join(", ");
    if images.len() > SHOWN {
        list.push_str(&format!(" and {} more", images.len() - SHOWN));
    }
    list
}

fn file_name(url: &str) -> String {
    if url.starts_with("data:") {
        return "an inline image".to_owned();
    }
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_differ_by_text_and_images_and_name_both() {
        let text = "1994 TOYOTA  COROLLA.\nAIR \"BAG\" FAILED.";
        let urls = ["http://x/images/truck.jpg?sig=1", "http://x/a/b.png"];
        let one = expected_description(text, &urls);
        assert_eq!(one, expected_description(text, &urls));
        assert!(one.contains("1994 TOYOTA COROLLA. AIR 'BAG' FAILED"), "{one}");
        assert!(one.contains("2 images: truck.jpg, b.png."), "{one}");
        assert_ne!(one, expected_description(text, &urls[..1]));
        assert_ne!(one, expected_description("other", &urls));
        assert!(expected_description("", &[]).contains("No image"));
    }

    #[test]
    fn translations_differ_by_language_and_translate_something() {
        let text = "The front door shows damage.";
        assert!(expected_translation(text, "ru").starts_with("[ru] этот передний дверь"));
        assert!(expected_translation(text, "de-AT").contains("vorne Tür"));
        assert!(expected_translation(text, "ka").contains(text));
        assert_ne!(expected_translation(text, "fr"), expected_translation(text, "es"));
    }
}
