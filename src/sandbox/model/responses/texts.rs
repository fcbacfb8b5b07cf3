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

/// The translation of a text into the language with this tag. Where [`PHRASES`] lacks the language, it is
/// the text itself behind the tag. The number at the end belongs to text and language, so that no two translations are equal.
pub fn expected_translation(text: &str, language: &str) -> String {
    let hash = ids::hex(&["translation", language, text]);
    let main = language.split('-').next().unwrap_or(language);
    let mut languages = PHRASES.lines().next().unwrap_or_default().split('\t');
    let words = match languages.position(|it| it == main) {
        Some(column) => replace_phrases(text, column),
        None => format!("[{language}] {text}"),
    };
    format!("{words} ({})", &hash[..8])
}

/// Parts of descriptions in several languages: a column a language, English first. A part stands before its own parts.
const PHRASES: &str = include_str!("phrases.tsv");

/// Replaces the phrases in a text by those of a column. A phrase begins and ends where a word does.
fn replace_phrases(text: &str, column: usize) -> String {
    let phrases: Vec<(&str, &str)> = PHRASES
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let english = cells.clone().next()?;
            Some((english, cells.nth(column)?))
        })
        .collect();
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    let mut is_in_word = false;
    while let Some(letter) = rest.chars().next() {
        let begins = |(english, _): &&(&str, &str)| {
            let after = rest.strip_prefix(english);
            after.is_some_and(|after| !after.starts_with(char::is_alphanumeric))
        };
        let found = match is_in_word && letter.is_alphanumeric() {
            true => None,
            false => phrases.iter().find(begins),
        };
        let (phrase, length) = match found {
            Some((english, translated)) => (*translated, english.len()),
            None => (&rest[..letter.len_utf8()], letter.len_utf8()),
        };
        is_in_word = rest[..length].ends_with(char::is_alphanumeric);
        out.push_str(phrase);
        rest = &rest[length..];
    }
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
    fn translations_differ_by_language_and_read_like_translations() {
        let text = expected_description("1994 TOYOTA COROLLA", &["http://x/truck.jpg", "http://x/b.png"]);
        for (language, start) in [
            ("ru", "Описание продавца: \"1994 TOYOTA COROLLA\". Фотографии"),
            (
                "de-AT",
                "Beschreibung des Verkäufers: \"1994 TOYOTA COROLLA\". Grundlage der Bewertung: 2 Bilder:",
            ),
            ("ka", "[ka] The vehicle"),
        ] {
            let translation = expected_translation(&text, language);
            assert!(translation.starts_with(start), "{translation}");
        }
        let german = expected_translation(&text, "de");
        for english in ["The ", " with ", " extent", "Reference"] {
            assert!(!german.contains(english), "{german}");
        }
        assert_ne!(expected_translation("-", "fr"), expected_translation("-", "es"));
        assert!(expected_translation("Android, the front-door", "de").starts_with("Android, the vorne-Tür"));
    }
}
