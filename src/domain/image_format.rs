//! The format of an image, as its first bytes show it.

/// The media types that OpenAI takes (guide "Images and vision").
pub const MEDIA_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// A format that OpenAI takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// JPEG (ISO/IEC 10918-1): a start of image, then a marker.
    Jpeg,
    /// PNG, by its signature.
    Png,
    /// GIF 87a or 89a.
    Gif,
    /// WebP in its RIFF container.
    WebP,
}

impl ImageFormat {
    /// The format of an image that begins like this; `None` if it is none that OpenAI takes, or too few bytes
    /// are there.
    pub fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }
}

/// The name of another format that a file begins like; `None` if it is not known.
pub fn other_format(start: &[u8]) -> Option<&'static str> {
    match start {
        // ISO base media files name their brand after `ftyp`.
        [
            _,
            _,
            _,
            _,
            b'f',
            b't',
            b'y',
            b'p',
            b'a',
            b'v',
            b'i',
            b'f' | b's',
            ..,
        ] => Some("AVIF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', ..]
        | [
            _,
            _,
            _,
            _,
            b'f',
            b't',
            b'y',
            b'p',
            b'm',
            b'i' | b's',
            b'f',
            b'1',
            ..,
        ] => Some("HEIC"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("a video"),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => Some("TIFF"),
        [b'B', b'M', ..] => Some("BMP"),
        [0, 0, 1, 0, ..] => Some("an icon"),
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 0, 0x0c, b'j', b'P', b' ', b' ', ..] => Some("JPEG 2000"),
        [b'%', b'P', b'D', b'F', ..] => Some("PDF"),
        _ => text_format(start),
    }
}

fn text_format(start: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if !text.starts_with('<') {
        return None;
    }
    if text.contains("<svg") {
        Some("SVG")
    } else if text.starts_with("<!doctype html") || text.contains("<html") {
        Some("HTML")
    } else {
        None
    }
}
