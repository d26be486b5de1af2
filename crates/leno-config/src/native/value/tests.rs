use super::*;

#[test]
fn durations() {
    let ms = Duration::from_millis;
    for (text, expected) in [
        ("5s", ms(5000)),
        ("500ms", ms(500)),
        ("1m30s", ms(90_000)),
        ("2h", ms(7_200_000)),
        ("1.5s", ms(1500)),
        ("0.25ms", Duration::from_micros(250)),
        ("24h", DURATION_MAX),
        ("23h59m60s", DURATION_MAX),
    ] {
        assert_eq!(duration(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "s",
        "5",
        "5 s",
        "5x",
        "-5s",
        "+5s",
        ".5s",
        "5.s",
        "1.2.3s",
        "1e3s",
        "5S",
        "0s",
        "0ms",
        "24h1ms",
        "1d",
        "9999999999s",
        "999999999h999999999h",
        "5s5",
        "٥s",
    ] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn addresses() {
    for (text, expected) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("8080", "127.0.0.1:8080"),
        ("0.0.0.0:1", "0.0.0.0:1"),
        ("[::1]:65535", "[::1]:65535"),
    ] {
        assert_eq!(
            address(text).map(|address| address.to_string()).ok().as_deref(),
            Some(expected),
            "{text}"
        );
    }
    for text in [
        "",
        "0",
        "65536",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        ":80",
        "a:80",
        "::1:80",
        "[::1]",
        "1.2.3:80",
        "127.0.0.1:80 ",
        "99999999999999999999",
    ] {
        assert!(address(text).is_err(), "{text}");
    }
}

#[test]
fn paths() {
    for text in ["/", "/a", "/a/", "/a/b.c/~d", "/%41", "/a;b=c,d@e:f!$&'()+="] {
        assert_eq!(path(text), Ok(text));
    }
    let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
    for text in [
        "", "a", "//", "/a//b", "/.", "/a/..", "/a/./b", "/a?b", "/a#b", "/*", "/ ", "/é", "/%", "/%4",
        "/%zz", "/a\\b", "/\u{7f}", &long,
    ] {
        assert!(path(text).is_err(), "{text}");
    }
}

#[test]
fn hosts() {
    let exact = |text: &str| Ok(HostMatch::Exact(text.into()));
    for (text, expected) in [
        ("example.com", exact("example.com")),
        ("localhost", exact("localhost")),
        ("my_host", exact("my_host")),
        ("127.0.0.1", exact("127.0.0.1")),
        ("[::1]", exact("[::1]")),
        ("*.example.com", Ok(HostMatch::Suffix(".example.com".into()))),
    ] {
        assert_eq!(host(text), expected, "{text}");
    }
    for text in [
        "", "*", "*.", "a.*", "*a.com", "A.com", "a..b", ".a", "a.", "-a", "a:80", "http://a", "a/b", "[::1",
        "[x]", "é.com", "a b",
    ] {
        assert!(host(text).is_err(), "{text}");
    }
}

#[test]
fn names_suggest_the_nearest_label() {
    for (text, suggested) in [
        ("User", Some("write \"user\"")),
        ("my_user", Some("write \"my-user\"")),
        ("v1.2", Some("write \"v1-2\"")),
        ("-a-", Some("write \"a\"")),
        ("é", None),
        ("", None),
        ("-", None),
    ] {
        assert_eq!(label(text, "a name").unwrap_err().hint.as_deref(), suggested, "{text}");
    }
}

#[test]
fn headers_and_methods() {
    assert_eq!(header_name("X-Beta").as_deref(), Ok("x-beta"));
    assert_eq!(header_value("*"), Ok(None));
    assert_eq!(header_value(""), Ok(Some("".into())));
    assert_eq!(method("PURGE").as_deref(), Ok("PURGE"));
    for text in ["", "a b", "a:", "Host", "é"] {
        assert!(header_name(text).is_err(), "{text}");
    }
    for text in ["", "get", "GE T", "Get", "*", "É"] {
        assert!(method(text).is_err(), "{text}");
    }
}
