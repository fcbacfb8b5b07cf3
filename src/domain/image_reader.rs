//! Finds out whether an image is whole: whether the end that its format prescribes is there.

use super::image_format::ImageFormat;

/// Reads an image byte by byte, and keeps a few bytes of it.
#[derive(Debug, Default)]
pub struct ImageReader {
    start: Vec<u8>,
    format: Option<ImageFormat>,
    bytes: u64,
    place: Place,
}

/// Bytes from which each format can be read.
const START_BYTES: usize = 12;
const SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// The place of the next byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the first bytes, or in a format whose parts are not walked through.
    #[default]
    Unknown,
    /// Where the marker of a JPEG segment begins.
    Marker,
    /// The code of a marker.
    Code,
    /// The first byte of the length of the segment with that code.
    Length(u8),
    /// The second byte, after the first one.
    LengthEnd(u8, u8),
    /// In a segment, with the number of bytes left.
    Segment(u8, u16),
    /// In the coded data of a JPEG.
    Scan,
    /// The same, after a byte 0xFF.
    ScanCode,
    /// In the head of a PNG chunk: its length and its type as far as they are read.
    ChunkHead(u64, u8),
    /// In the data of a PNG chunk, with the number of bytes left.
    Chunk(u64, u32),
    /// Behind the end.
    End,
    /// The parts make no sense.
    Lost,
}

impl ImageReader {
    /// Reads the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        for byte in bytes {
            match self.format {
                None if self.start.len() < START_BYTES => self.begin(*byte),
                Some(ImageFormat::Jpeg | ImageFormat::Png) => self.place = self.place.after(*byte),
                _ => {}
            }
        }
    }

    fn begin(&mut self, byte: u8) {
        self.start.push(byte);
        self.format = ImageFormat::of(&self.start);
        self.place = match self.format {
            // The third of the first bytes begins a marker.
            Some(ImageFormat::Jpeg) => Place::Code,
            Some(ImageFormat::Png) => Place::ChunkHead(0, 0),
            _ => Place::Unknown,
        };
    }

    /// Whether the end of the image was read. The end of a GIF is not looked for.
    pub fn is_whole(&self) -> bool {
        match self.format {
            Some(ImageFormat::Jpeg | ImageFormat::Png) => self.place == Place::End,
            // A RIFF file says its size after its name.
            Some(ImageFormat::WebP) => {
                let size = self.start.get(4..8).and_then(|it| it.try_into().ok());
                self.bytes >= u64::from(size.map_or(0, u32::from_le_bytes)) + 8
            }
            Some(ImageFormat::Gif) => true,
            None => false,
        }
    }
}

impl Place {
    /// The place after that byte.
    fn after(self, byte: u8) -> Self {
        match self {
            Self::Marker if byte == 0xff => Self::Code,
            Self::Marker => Self::Lost,
            Self::Code => Self::after_code(byte),
            Self::Length(code) => Self::LengthEnd(code, byte),
            Self::LengthEnd(code, first) => match u16::from_be_bytes([first, byte]) {
                0 | 1 => Self::Lost,
                length => Self::Segment(code, length - 2).ended(),
            },
            Self::Segment(code, left) => Self::Segment(code, left.saturating_sub(1)).ended(),
            Self::Scan if byte == 0xff => Self::ScanCode,
            Self::Scan => Self::Scan,
            // A stuffed byte, or a restart.
            Self::ScanCode if matches!(byte, 0 | 0xd0..=0xd7) => Self::Scan,
            Self::ScanCode if byte == 0xff => Self::ScanCode,
            Self::ScanCode => Self::after_code(byte),
            Self::ChunkHead(head, read) => {
                let head = (head << 8) | u64::from(byte);
                match read {
                    7 => {
                        let kind = u32::try_from(head & 0xffff_ffff).unwrap_or(0);
                        // A checksum of four bytes follows the data.
                        Self::Chunk((head >> 32) + 4, kind)
                    }
                    read => Self::ChunkHead(head, read + 1),
                }
            }
            Self::Chunk(1, kind) if kind.to_be_bytes() == *b"IEND" => Self::End,
            Self::Chunk(1, _) => Self::ChunkHead(0, 0),
            Self::Chunk(left, kind) => Self::Chunk(left - 1, kind),
            Self::Unknown | Self::End | Self::Lost => self,
        }
    }

    fn after_code(code: u8) -> Self {
        match code {
            0xff => Self::Code,
            END_OF_IMAGE => Self::End,
            // These have no length.
            0x01 | 0xd0..=0xd8 => Self::Marker,
            0 => Self::Lost,
            code => Self::Length(code),
        }
    }

    /// The place behind a segment whose last byte was read.
    fn ended(self) -> Self {
        match self {
            Self::Segment(SCAN, 0) => Self::Scan,
            Self::Segment(_, 0) => Self::Marker,
            place => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(bytes: &[u8]) -> bool {
        let mut reader = ImageReader::default();
        // Pieces as they may come.
        for piece in bytes.chunks(7) {
            reader.feed(piece);
        }
        reader.is_whole()
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x02IHDRabCCCC\0\0\0\0IEND\xae\x42\x60\x82";

    #[test]
    fn an_image_without_its_end_is_not_whole() {
        let photo = include_bytes!("../sandbox/model/responses/images/truck.jpg").as_slice();
        let thumbnail = [
            b"\xff\xd8\xff\xe1\x00\x06\xff\xd9..\xff\xda\x00\x02data\xff\x00\xff\xd3more".as_slice(),
            b"\xff\xd9",
        ]
        .concat();
        for (whole, name) in [(photo, "photo"), (&thumbnail, "thumbnail"), (PNG, "png")] {
            assert!(is_whole(whole), "{name}");
            assert!(is_whole(&[whole, b"and more behind it"].concat()), "{name}");
            for cut in [whole.len() - 2, whole.len() / 2, 3] {
                assert!(!is_whole(&whole[..cut]), "{name} {cut}");
            }
        }
        let webp = b"RIFF\x08\x00\x00\x00WEBPVP8 ";
        assert!(is_whole(webp) && !is_whole(&webp[..15]));
        assert!(is_whole(b"GIF89a"));
        assert!(!is_whole(b"<html>") && !is_whole(b""));
        assert!(!is_whole(b"\xff\xd8\xff\xe0\x00\x01") && !is_whole(b"\xff\xd8\xff\xe0\x00\x02x"));
    }
}
