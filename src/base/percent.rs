//! Percent-encoding (RFC 3986, 2.1).

/// Encodes all bytes of the text for which `is_plain` is false.
pub fn encode(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    encode_bytes(text.as_bytes(), is_plain)
}

/// Encodes all bytes for which `is_plain` is false, and all that are not ASCII.
pub fn encode_bytes(bytes: &[u8], is_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii() && is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Decodes a text. Invalid escapes stay as they are; invalid UTF-8 becomes U+FFFD.
pub fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match escaped_byte(rest) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_escapes_stay_as_they_are() {
        assert_eq!(decode("%41%e9%C3%A9 %4 %zz%+1%"), "A\u{fffd}é %4 %zz%+1%");
        assert_eq!(encode("a/é%", |byte| byte != b'%'), "a/%C3%A9%25");
    }

    proptest! {
        #[test]
        fn an_encoded_text_decodes_to_itself(text in ".{0,40}") {
            let encoded = encode(&text, |byte| byte.is_ascii_graphic() && byte != b'%');
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode(&encoded), text);
        }
    }
}
