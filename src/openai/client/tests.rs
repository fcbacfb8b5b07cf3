use super::*;

fn settings_error(base_url: &str) -> Option<SettingsError> {
    let identity = Identity {
        base_url: base_url.to_owned(),
        organization: String::new(),
        project: String::new(),
    };
    OpenAiClient::new(ClientSettings::new(identity, ApiKey::new("sk-1"))).err()
}

#[test]
fn the_key_travels_in_the_clear_within_this_machine_only() {
    for url in [
        "https://api.openai.com/v1",
        "https://api.openai.com/v1//",
        "http://localhost:9/v1",
        "http://127.8.8.8",
        "http://[::1]:80/v1",
    ] {
        assert_eq!(settings_error(url), None, "{url}");
    }
    for host in ["localhost.evil.test", "10.0.0.1", "[::2]", "127.1.evil.test"] {
        let plain = SettingsError::PlainHttp(host.to_owned());
        assert_eq!(settings_error(&format!("http://{host}/v1")), Some(plain));
    }
    for url in [
        "",
        "/v1",
        "api.openai.com",
        "ftp://localhost",
        "https://key@api.openai.com/v1",
        "http://localhost@evil.test/v1",
        "https://api.openai.com/v1?x=1",
        "https://api.openai.com/v1#x",
    ] {
        assert_eq!(
            settings_error(url),
            Some(SettingsError::BaseUrl(url.to_owned())),
            "{url}"
        );
    }
}

#[test]
fn odd_keys_and_identities_are_refused_without_showing_them() {
    let identity = |organization: &str| Identity {
        base_url: "https://api.openai.com/v1".to_owned(),
        organization: organization.to_owned(),
        project: String::new(),
    };
    for key in ["", " \n", "sk-\u{7f}secret", "sk-a\nb"] {
        let error = OpenAiClient::new(ClientSettings::new(identity(""), ApiKey::new(key))).unwrap_err();
        assert_eq!(error, SettingsError::ApiKey);
    }
    let settings = ClientSettings::new(identity("org\n"), ApiKey::new("sk-secret"));
    assert!(!format!("{settings:?}").contains("secret"));
    assert_eq!(
        OpenAiClient::new(settings).unwrap_err(),
        SettingsError::Identity("organization")
    );
    let client = OpenAiClient::new(ClientSettings::new(identity(""), ApiKey::new("sk-secret\n"))).unwrap();
    assert!(!format!("{client:?}").contains("secret"));
}
