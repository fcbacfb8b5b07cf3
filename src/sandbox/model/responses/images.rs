//! Sample images at `/images/<name>`, and which image URLs the simulated models can fetch.

use crate::http::Response;

use crate::sandbox::model::error_reply::ErrorReply;

const IMAGES: [(&str, &[u8]); 4] = [
    ("china.jpg", include_bytes!("images/china.jpg")),
    ("flower.jpg", include_bytes!("images/flower.jpg")),
    ("rocket.jpg", include_bytes!("images/rocket.jpg")),
    ("truck.jpg", include_bytes!("images/truck.jpg")),
];

/// The names of the images under `/images/`.
pub fn image_names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|(name, _)| *name)
}

/// Answers `GET` and `HEAD` alike: the server leaves the body of a `HEAD` away.
pub(in crate::sandbox) fn serve(name: &str) -> Result<Response, ErrorReply> {
    let (_, bytes) = IMAGES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| ErrorReply::new(404, format!("There is no image {name}.")))?;
    Ok(Response::bytes(200, "image/jpeg", bytes.to_vec())
        .with_header("Cache-Control", "public, max-age=3600"))
}

/// Whether a model would get the image: not those called `missing.jpg`, and of those under
/// `/images/` only the ones that are there. Nothing is fetched.
pub(in crate::sandbox) fn can_fetch(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return true;
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    if path.ends_with("missing.jpg") {
        return false;
    }
    match path.strip_prefix("images/") {
        Some(name) => image_names().any(|known| known == name),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_apart() {
        assert!(can_fetch("http://127.0.0.1:1/images/truck.jpg?x=1"));
        assert!(can_fetch("https://example.net/photos/1.jpg"));
        assert!(can_fetch("data:image/png;base64,AAAA"));
        assert!(!can_fetch("https://example.net/photos/missing.jpg"));
        assert!(!can_fetch("http://127.0.0.1:1/images/boat.jpg"));
    }
}
