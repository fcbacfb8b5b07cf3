//! The sample images, and the image URLs that the simulated models can download.

const IMAGES: [(&str, &[u8]); 4] = [
    ("china.jpg", include_bytes!("images/china.jpg")),
    ("flower.jpg", include_bytes!("images/flower.jpg")),
    ("rocket.jpg", include_bytes!("images/rocket.jpg")),
    ("truck.jpg", include_bytes!("images/truck.jpg")),
];

/// The names of the sample images. The HTTP front end serves them under `/images/`.
pub fn image_names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|(name, _)| *name)
}

/// The JPEG of a sample image.
pub fn sample_image(name: &str) -> Option<&'static [u8]> {
    IMAGES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, bytes)| *bytes)
}

/// Whether a model can download an image; nothing is downloaded. Names that end with `missing.jpg` cannot be
/// downloaded, nor can unknown names under `/images/`.
pub fn is_reachable(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return true;
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    if path.ends_with("missing.jpg") {
        return false;
    }
    match path.strip_prefix("images/") {
        Some(name) => sample_image(name).is_some(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_missing_images_are_unreachable() {
        assert!(is_reachable("http://127.0.0.1:1/images/truck.jpg?x=1"));
        assert!(is_reachable("https://example.net/photos/1.jpg"));
        assert!(is_reachable("data:image/png;base64,AAAA"));
        assert!(!is_reachable("https://example.net/photos/missing.jpg"));
        assert!(!is_reachable("http://127.0.0.1:1/images/boat.jpg"));
    }
}
