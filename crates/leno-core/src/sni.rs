//! Which hosts a TLS connection may carry requests for: those that its certificate names. A client may use a connection for
//! another host that the certificate names too (RFC 9113 §9.1.1), and for no other: who is behind it was proved only for these.

/// True when one of the certificate's `names` stands for `host`, which has no port. A name `*.example.com` stands for one
/// label more than what follows the asterisk.
pub fn is_served<'a>(names: impl IntoIterator<Item = &'a str>, host: &[u8]) -> bool {
    let host = host.strip_suffix(b".").unwrap_or(host);
    names.into_iter().any(|name| stands_for(name.as_bytes(), host))
}

fn stands_for(name: &[u8], host: &[u8]) -> bool {
    match name.strip_prefix(b"*.") {
        Some(parent) => host
            .iter()
            .position(|byte| *byte == b'.')
            .and_then(|dot| host.get(dot + 1..).filter(|_| dot > 0))
            .is_some_and(|rest| rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::is_served;

    #[test]
    fn only_what_a_certificate_names() {
        for (names, host, served) in [
            (&["a.example"][..], "a.example", true),
            (&["a.example"], "A.Example.", true),
            (&["a.example"], "b.example", false),
            (&["a.example", "b.example"], "b.example", true),
            (&["*.example"], "a.example", true),
            (&["*.example"], "example", false),
            (&["*.example"], "b.a.example", false),
            (&["*.example"], ".example", false),
            (&[], "a.example", false),
        ] {
            assert_eq!(is_served(names.iter().copied(), host.as_bytes()), served, "{names:?} {host}");
        }
    }
}
