//! The receiver of a webhook.

/// The receiver at a checked webhook URL: its host and port, in lower case.
pub fn receiver(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = match scheme.eq_ignore_ascii_case("https") {
        _ if has_port => "",
        true => ":443",
        false => ":80",
    };
    format!("{}{port}", host.trim_end_matches(':').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_a_host_and_a_port() {
        for (url, expected) in [
            ("https://Hooks.Example/a?b=c://d", "hooks.example:443"),
            ("http://hooks.example", "hooks.example:80"),
            ("http://hooks.example:8080?x", "hooks.example:8080"),
            ("HTTPS://[2001:db8::1]/x", "[2001:db8::1]:443"),
            ("http://[2001:db8::1]:81#f", "[2001:db8::1]:81"),
        ] {
            assert_eq!(receiver(url), expected, "{url}");
        }
    }
}
