//! Which image of a request an error of OpenAI's blames, and whether the lot can do without it.
//!
//! | the error has | image |
//! |---|---|
//! | the whole URL of one of the images | that one |
//! | the first hundred characters of it, or a beginning with `…` or `...` | that one, if no other URL begins so |
//! | the place of a content part: `input[0].content[3].image_url` | that one, if this program made the line |
//! | anything else | none is blamed |

use super::missing_images::has_too_few_images;
use crate::base::percent;
use crate::domain::vision;

/// A beginning of a URL that has fewer characters blames an image only with a mark that it is cut.
const LEAST_BEGINNING: usize = 100;

/// What an error says of the images of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlamedImage {
    /// It blames no single image.
    #[default]
    None,
    /// It blames one, and the lot has enough without it.
    Spare,
    /// It blames one, and the lot has too few without it.
    Needed,
}

/// A request whose images an error may blame.
#[derive(Clone, Copy, Debug)]
pub struct SentImages<'a> {
    /// The seller's text.
    pub info: &'a str,
    /// All usable images of the lot.
    pub images: &'a [String],
    /// Those that were not sent.
    pub missing: &'a [String],
    /// Whether this program made the line, so that it knows the places of the images in it.
    pub is_own_line: bool,
}

impl<'a> SentImages<'a> {
    /// The image that `error` blames.
    pub fn blamed_by(&self, error: &str) -> Option<&'a str> {
        let sent = || self.images.iter().filter(|it| !self.missing.contains(it));
        let named = sent()
            .filter(|url| names(error, url) || names(error, &encode(url)))
            .max_by_key(|url| url.len());
        if let Some(url) = named {
            return Some(url);
        }
        if let Some(beginning) = cut_url(error) {
            let mut found =
                sent().filter(|url| url.starts_with(beginning) || encode(url).starts_with(beginning));
            let first = found.next();
            return first
                .filter(|first| found.all(|other| other == *first))
                .map(String::as_str);
        }
        let place = content_place(error).filter(|_| self.is_own_line)?;
        let image = vision::image_at(place, self.info)?;
        sent().nth(image).map(String::as_str)
    }

    /// What it means for the lot to do without this image.
    pub fn without(&self, url: &str) -> BlamedImage {
        let is_missing = |it: &&String| *it == url || self.missing.contains(it);
        let missing = self.images.iter().filter(is_missing).count();
        match has_too_few_images(self.images.len(), missing) {
            true => BlamedImage::Needed,
            false => BlamedImage::Spare,
        }
    }
}

fn encode(url: &str) -> String {
    percent::encode(url, |byte| byte.is_ascii())
}

/// Whether a text has the whole URL, and not a longer one that begins with it.
fn names(text: &str, url: &str) -> bool {
    text.match_indices(url).any(|(at, _)| {
        let mut rest = text[at + url.len()..].chars();
        match rest.next() {
            // A full stop or a comma may end the sentence.
            Some('.' | ',' | ':' | ';' | '!' | '?') => !rest.next().is_some_and(is_of_url),
            next => !next.is_some_and(is_of_url),
        }
    })
}

fn is_of_url(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/?&=%-_~#+@$".contains(c)
}

/// The first URL of a text that is cut off.
fn cut_url(text: &str) -> Option<&str> {
    let begins = text.find("http://").or_else(|| text.find("https://"))?;
    let url = &text[begins..];
    let url = url.split([' ', '"', '\'', '\n', '<', '>']).next()?;
    match url.strip_suffix('…').or_else(|| url.strip_suffix("...")) {
        Some(beginning) => Some(beginning),
        None => (url.chars().count() >= LEAST_BEGINNING).then_some(url),
    }
}

/// The number of the content part that a text names.
fn content_place(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("content[")?;
    rest.split_once(']')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(list: &[&str]) -> Vec<String> {
        list.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn an_image_is_blamed_by_url_or_place() {
        let long = format!("https://a.example/{}?X-Amz-Signature=1", "x".repeat(600));
        let images = urls(&[
            "https://a.example/1.jpg",
            "https://a.example/1.jpg?v=2",
            "https://a.example/é.jpg",
            "https://a.example/4.jpg",
            &long,
            "https://a.example/twice.jpg",
        ]);
        let missing = urls(&["https://a.example/4.jpg"]);
        let of = |info, is_own_line| SentImages {
            info,
            images: &images,
            missing: &missing,
            is_own_line,
        };
        for (error, blamed) in [
            ("Error while downloading https://a.example/1.jpg.", Some(0)),
            ("Error while downloading 'https://a.example/1.jpg'", Some(0)),
            (
                "Timeout while downloading https://a.example/1.jpg?v=2: 403",
                Some(1),
            ),
            ("Timeout while downloading https://a.example/%C3%A9.jpg", Some(2)),
            ("Error while downloading https://a.example/1.jpg.bak", None),
            ("Error while downloading https://a.example/1.jpg2", None),
            ("Error while downloading https://a.example/4.jpg", None),
            ("Error while downloading https://a.example/tw...", Some(5)),
            ("Error while downloading https://a.example/1.jp...", None),
            ("Error while downloading https://a.example/tw", None),
            (&format!("Error while downloading {}", &long[..300]), Some(4)),
            ("input[0].content[0].image_url: no image", None),
            ("input[0].content[1].image_url: no image", Some(0)),
            // The fourth image was not sent.
            ("input[0].content[4].image_url: no image", Some(4)),
            ("input[0].content[9].image_url: no image", None),
            ("messages[0].content[3].image_url.url: no image", Some(2)),
            ("input[0].content[x]", None),
            ("no valid image", None),
        ] {
            let expected = blamed.map(|at: usize| images[at].as_str());
            assert_eq!(of("text", true).blamed_by(error), expected, "{error}");
        }
        let place = "input[0].content[1].image_url";
        assert_eq!(of("", true).blamed_by(place), Some(images[1].as_str()));
        assert_eq!(of("", false).blamed_by(place), None);
    }

    #[test]
    fn a_lot_can_do_without_thirty_percent_of_its_images() {
        let images: Vec<String> = (0..10).map(|at| format!("https://a.example/{at}")).collect();
        for (missing, expected) in [
            (0, BlamedImage::Spare),
            (2, BlamedImage::Spare),
            (3, BlamedImage::Needed),
        ] {
            let sent = SentImages {
                info: "",
                images: &images,
                missing: &images[..missing],
                is_own_line: true,
            };
            assert_eq!(sent.without(&images[9]), expected, "{missing}");
        }
    }
}
