//! The authority, its certificates as others read them, join tokens and files.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use leno_identity::authority::{
    Authority, AuthorityError, BACKDATING, CSR_BYTES_MAX, IssueError, LEAF_LIFETIME, Pin, ROOT_LIFETIME,
    control_id,
};
use leno_identity::credential::{CredentialError, KeyAndCsr};
use leno_identity::files::{self, Problem};
use leno_identity::reason::Reason;
use leno_identity::svid::Facts;
use leno_identity::token::{Grant, JoinToken, TokenError, TokenRecord, TokenRefusal};

const NOW: UnixTime = UnixTime(1_800_000_000);

#[test]
fn a_leaf_has_the_given_id_and_life_and_the_request_decides_nothing() {
    let mesh = mesh();
    let request = foreign_request(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::URI("spiffe://shop.mesh/ns/leno/sa/control".try_into().unwrap())];
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let chain = mesh.issue(&request, &id("cart"), NOW, LEAF_LIFETIME).unwrap();
    assert_eq!(chain.len(), 1);
    let facts = Facts::read(&chain[0]).unwrap();
    assert_eq!(facts.id, id("cart"));
    assert_eq!(facts.not_before, UnixTime(NOW.0 - BACKDATING.as_secs()));
    assert_eq!(facts.not_after, NOW.after(LEAF_LIFETIME));
    let again = mesh.issue(&request, &id("cart"), NOW, LEAF_LIFETIME).unwrap();
    assert_ne!(chain, again, "serial numbers are random");
}

#[test]
fn requests_that_are_refused() {
    let mesh = mesh();
    let issue = |csr: &[u8]| mesh.issue(csr, &id("cart"), NOW, LEAF_LIFETIME).unwrap_err();
    let good = KeyAndCsr::generate().unwrap().csr_der().to_vec();
    assert_eq!(issue(b""), IssueError::Unreadable);
    assert_eq!(issue(&good[..good.len() - 1]), IssueError::Unreadable);
    assert_eq!(issue(&[&good[..], b"x"].concat()), IssueError::Unreadable);
    assert_eq!(issue(&vec![0; CSR_BYTES_MAX + 1]), IssueError::RequestTooLong(CSR_BYTES_MAX + 1));
    for other in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        assert_eq!(issue(&foreign_request(other, |_| ())), IssueError::KeyType);
    }
    // Another key in place of the one that signed: the signature no longer fits.
    let (mut forged, other) = (good.clone(), KeyAndCsr::generate().unwrap());
    let point = |csr: &[u8]| csr.windows(3).position(|w| w == [0x03, 0x42, 0x00]).unwrap() + 3;
    let (at, from) = (point(&forged), point(other.csr_der()));
    forged[at..at + 65].copy_from_slice(&other.csr_der()[from..from + 65]);
    assert_eq!(issue(&forged), IssueError::Signature);

    let elsewhere = SpiffeId { trust_domain: TrustDomain::parse("other.mesh").unwrap(), ..id("cart") };
    assert!(matches!(
        mesh.issue(&good, &elsewhere, NOW, LEAF_LIFETIME),
        Err(IssueError::TrustDomain { asked, .. }) if asked == elsewhere
    ));
    assert_eq!(
        mesh.issue(&good, &id("cart"), NOW.after(ROOT_LIFETIME), LEAF_LIFETIME),
        Err(IssueError::RootExpired)
    );
    // Shortly before, the leaf ends with the root.
    let near_the_end = UnixTime(NOW.after(ROOT_LIFETIME).0 - 60);
    let chain = mesh.issue(&good, &id("cart"), near_the_end, LEAF_LIFETIME).unwrap();
    assert_eq!(Facts::read(&chain[0]).unwrap().not_after, NOW.after(ROOT_LIFETIME));
    assert!(matches!(
        mesh.issue(&good, &id("cart"), UnixTime(u64::MAX - 1), LEAF_LIFETIME),
        Err(IssueError::RootExpired)
    ));
    assert!(matches!(
        Authority::create(mesh.trust_domain(), UnixTime(u64::MAX)),
        Err(AuthorityError::Clock(_))
    ));
}

/// Whatever byte of a request or a certificate is damaged: refused or read, never a panic; a request whose
/// signed part is damaged is never issued for.
#[test]
fn damage_is_survived_at_every_byte() {
    let mesh = mesh();
    let request = KeyAndCsr::generate().unwrap();
    // SEQUENCE { what is signed, algorithm, signature }, with headers of three and two bytes at this size.
    let signed = 3..5 + usize::from(request.csr_der()[4]);
    assert_eq!(request.csr_der()[..4], [0x30, 0x81, request.csr_der()[2], 0x30]);
    for at in 0..request.csr_der().len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = request.csr_der().to_vec();
            damaged[at] ^= flip;
            let answer = mesh.issue(&damaged, &id("cart"), NOW, LEAF_LIFETIME);
            // Around it the parser overlooks wrong tags and padding; what they enclose is the same.
            assert!(answer.is_err() || !signed.contains(&at), "byte {at} ^ {flip:#x}");
        }
    }
    let chain = mesh.issue(request.csr_der(), &id("cart"), NOW, LEAF_LIFETIME).unwrap();
    for der in [&chain[0], &mesh.roots()[0]] {
        for at in 0..der.len() {
            let mut damaged = der.to_vec();
            damaged[at] ^= 0x81;
            let _either = Facts::read(&damaged.as_slice().into());
            let _either = Authority::load(&damaged, mesh.key_pkcs8());
            let _either = Facts::read(&der[..at].into());
        }
    }
    let text = JoinToken::new(mesh.pin(), Grant::Service(id("cart").service), None, NOW).unwrap().0.text();
    for at in 0..text.len() {
        let mut damaged = text.clone().into_bytes();
        damaged[at] ^= 0x03;
        let damaged = String::from_utf8(damaged).unwrap();
        assert_ne!(JoinToken::parse(&damaged).ok(), JoinToken::parse(&text).ok());
    }
}

#[test]
fn an_authority_survives_being_kept() {
    let mesh = mesh();
    let kept = Authority::load(&mesh.roots()[0], mesh.key_pkcs8()).unwrap();
    assert_eq!(kept.pin(), mesh.pin());
    assert_eq!(kept.trust_domain(), mesh.trust_domain());
    assert_eq!(kept.roots(), mesh.roots());
    assert_eq!(kept.not_after(), NOW.after(ROOT_LIFETIME));
    // Old and new issue for each other's roots.
    let request = KeyAndCsr::generate().unwrap();
    let chain = kept.issue(request.csr_der(), &id("cart"), NOW, LEAF_LIFETIME).unwrap();
    request.accept(chain, mesh.roots(), &id("cart"), NOW).unwrap();

    let other = self::mesh();
    assert!(matches!(Authority::load(&mesh.roots()[0], other.key_pkcs8()), Err(AuthorityError::KeyMismatch)));
    assert!(matches!(Authority::load(&mesh.roots()[0], b"key"), Err(AuthorityError::Key)));
    assert!(matches!(Authority::load(b"root", mesh.key_pkcs8()), Err(AuthorityError::Certificate(_))));
    let leaf = mesh.credential(&id("cart"), NOW, LEAF_LIFETIME).unwrap();
    assert!(matches!(
        Authority::load(&leaf.chain()[0], mesh.key_pkcs8()),
        Err(AuthorityError::Certificate(_))
    ));
}

#[test]
fn a_credential_is_only_built_from_parts_that_fit() {
    let (mesh, other) = (mesh(), mesh());
    let fresh = || KeyAndCsr::generate().unwrap();
    let request = fresh();
    let chain = mesh.issue(request.csr_der(), &id("cart"), NOW, LEAF_LIFETIME).unwrap();
    assert_eq!(
        fresh().accept(chain.clone(), mesh.roots(), &id("cart"), NOW).unwrap_err(),
        CredentialError::KeyMismatch
    );
    assert_eq!(
        fresh().accept(chain.clone(), other.roots(), &id("cart"), NOW).unwrap_err(),
        CredentialError::Chain(Reason::UnknownAuthority)
    );
    let late = NOW.after(LEAF_LIFETIME).after(Duration::from_secs(5));
    assert_eq!(
        fresh().accept(chain.clone(), mesh.roots(), &id("cart"), late).unwrap_err(),
        CredentialError::Chain(Reason::Expired(Some(Duration::from_secs(5))))
    );
    assert!(matches!(
        fresh().accept(vec![], mesh.roots(), &id("cart"), NOW),
        Err(CredentialError::NotSpiffe(_))
    ));
    assert!(matches!(fresh().accept(chain.clone(), vec![], &id("cart"), NOW), Err(CredentialError::Root(_))));
    assert!(matches!(
        fresh().accept(vec![chain[0].clone(); 100], mesh.roots(), &id("cart"), NOW),
        Err(CredentialError::TooMany)
    ));
    assert_eq!(
        request.accept(chain, mesh.roots(), &id("user"), NOW).unwrap_err(),
        CredentialError::WrongId { expected: id("user"), found: id("cart") }
    );
}

#[test]
fn openssl_reads_and_verifies_what_we_issue() {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // openssl verifies against its own clock unless told another one.
    let mesh = mesh();
    let leaf = mesh.credential(&id("cart"), NOW, LEAF_LIFETIME).unwrap();
    let (root_path, leaf_path) = (dir.path().join("root.der"), dir.path().join("leaf.der"));
    std::fs::write(&root_path, &mesh.roots()[0]).unwrap();
    std::fs::write(&leaf_path, &leaf.chain()[0]).unwrap();
    for (name, path) in [("root", &root_path), ("leaf", &leaf_path)] {
        let pem = openssl(&["x509", "-inform", "der", "-in", path.to_str().unwrap()]);
        std::fs::write(dir.path().join(format!("{name}.pem")), pem).unwrap();
    }
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for purpose in ["sslserver", "sslclient"] {
        let said = openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-attime",
            "1800000000",
            "-CAfile",
            &path("root.pem"),
            &path("leaf.pem"),
        ]);
        assert!(said.trim_end().ends_with(": OK"), "{said}");
    }
    let text = openssl(&["x509", "-noout", "-text", "-in", &path("leaf.pem")]);
    for line in [
        "URI:spiffe://shop.mesh/ns/default/sa/cart",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        "ASN1 OID: prime256v1",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let text = openssl(&["x509", "-noout", "-text", "-in", &path("root.pem")]);
    for line in ["CA:TRUE, pathlen:0", "Certificate Sign", "URI:spiffe://shop.mesh\n"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn a_token_is_good_for_what_it_grants_as_often_and_as_long_as_it_says() {
    let grant = Grant::Service(ServiceId::parse("cart").unwrap());
    let (token, mut record) = JoinToken::new(mesh().pin(), grant.clone(), Some(2), UnixTime(100)).unwrap();
    let read = JoinToken::parse(&format!("{}\n", token.text())).unwrap();
    assert_eq!(read, token);
    assert_eq!(TokenRecord::verify(Some(&record), &read, Some(&grant), UnixTime(99)), Ok(&grant));
    assert_eq!(TokenRecord::verify(Some(&record), &read, None, UnixTime(99)), Ok(&grant));
    assert_eq!(TokenRecord::verify(None, &read, None, UnixTime(99)), Err(TokenRefusal::Unknown));
    assert_eq!(
        TokenRecord::verify(Some(&record), &read, None, UnixTime(103)),
        Err(TokenRefusal::Expired { ago: 3 })
    );
    let wanted = Grant::Gateway(ServiceId::parse("cart").unwrap());
    assert_eq!(
        TokenRecord::verify(Some(&record), &read, Some(&wanted), UnixTime(99)),
        Err(TokenRefusal::WrongGrant { granted: grant.clone(), wanted: wanted.clone() })
    );
    assert_eq!(grant.identity(), Some(&ServiceId::parse("cart").unwrap()));
    record.spend();
    assert!(TokenRecord::verify(Some(&record), &read, None, UnixTime(99)).is_ok());
    record.spend();
    assert_eq!(TokenRecord::verify(Some(&record), &read, None, UnixTime(99)), Err(TokenRefusal::UsedUp));
    record.spend();
    assert_eq!(record.uses_left, Some(0));

    // The same id with another secret learns nothing about the record, used up or not.
    let (other, _) = JoinToken::new(mesh().pin(), grant, None, UnixTime(100)).unwrap();
    let forged = token.text().replace(&token.id, &other.id);
    let forged = JoinToken::parse(&other.text().replace(&other.id, &token.id)).map_err(|_| forged).unwrap();
    assert_eq!(
        TokenRecord::verify(Some(&record), &forged, None, UnixTime(999)),
        Err(TokenRefusal::WrongSecret)
    );
    assert!(!format!("{token:?}").contains(token.text().split('.').nth(2).unwrap()));
}

#[test]
fn nobody_is_given_one_of_lenos_own_identities() {
    let control = ServiceId::parse("leno/control").unwrap();
    assert_eq!(Grant::Service(control.clone()).identity(), None);
    assert_eq!(Grant::Gateway(control).identity(), None);
    assert_eq!(control_id(mesh().trust_domain()).to_uri(), "spiffe://shop.mesh/ns/leno/sa/control");
}

#[test]
fn damaged_tokens_say_what_is_damaged() {
    let grant = Grant::Gateway(ServiceId::parse("edge").unwrap());
    let (token, _) = JoinToken::new(mesh().pin(), grant, None, NOW).unwrap();
    let text = token.text();
    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!(JoinToken::parse(""), Err(TokenError::Prefix));
    assert_eq!(JoinToken::parse(&text.replace("leno1", "leno2")), Err(TokenError::Prefix));
    assert_eq!(JoinToken::parse("leno1.a.b"), Err(TokenError::Parts));
    assert_eq!(JoinToken::parse(&format!("{text}.x")), Err(TokenError::Parts));
    assert_eq!(JoinToken::parse(&text[..text.len() - 1]), Err(TokenError::Part("pin")));
    let damaged = |at: usize| {
        let mut parts = parts.clone();
        parts[at] = "Zg";
        JoinToken::parse(&parts.join("."))
    };
    assert_eq!(damaged(1), Err(TokenError::Part("id")));
    assert_eq!(damaged(2), Err(TokenError::Part("secret")));
    assert_eq!(damaged(3), Err(TokenError::Part("pin")));
    assert_eq!(JoinToken::parse(&"x".repeat(10_000)), Err(TokenError::TooLong(10_000)));
    assert_eq!(Pin::parse(parts[3]), Some(token.pin));
}

#[test]
fn several_proxies_share_one_authority_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("a/b");
    let domain = TrustDomain::parse("shop.mesh").unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = ["cart", "user", "product", "edge"]
            .map(|name| {
                let (shared, domain) = (&shared, &domain);
                scope.spawn(move || {
                    files::self_made(shared, domain, &ServiceId::parse(name).unwrap(), NOW).unwrap()
                })
            })
            .into_iter()
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|credential| credential.roots() == made[0].roots()));
    assert_eq!(made[0].id, id("cart"));
    assert_eq!(files::certificates(&shared.join(files::ROOTS_FILE)).unwrap(), made[0].roots());
    assert_eq!(mode(&shared.join(files::AUTHORITY_FILE)), 0o600);
    assert_eq!(mode(&shared), 0o700);

    let other = TrustDomain::parse("other.mesh").unwrap();
    let error = files::shared_authority(&shared, &other, NOW).unwrap_err();
    assert!(matches!(*error.problem, Problem::TrustDomain { .. }), "{error}");
    set_mode(&shared.join(files::AUTHORITY_FILE), 0o644);
    let error = files::shared_authority(&shared, &domain, NOW).unwrap_err();
    assert!(matches!(*error.problem, Problem::Exposed), "{error}");
    set_mode(&shared.join(files::AUTHORITY_FILE), 0o600);
    std::fs::write(shared.join(files::AUTHORITY_FILE), "not PEM").unwrap();
    let error = files::shared_authority(&shared, &domain, NOW).unwrap_err();
    assert!(error.to_string().ends_with("authority.pem: it holds no certificate in PEM form"), "{error}");
}

#[test]
fn a_credential_comes_from_pem_files() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = mesh();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let chain = mesh.issue(csr.der(), &id("cart"), NOW, LEAF_LIFETIME).unwrap();
    let path = |name: &str| dir.path().join(name);
    let pem = |der: &[u8]| {
        let der_path = path("der");
        std::fs::write(&der_path, der).unwrap();
        rcgen_pem(der)
    };
    std::fs::write(path("cert.pem"), pem(&chain[0])).unwrap();
    std::fs::write(path("roots.pem"), pem(&mesh.roots()[0])).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let load =
        |cert: &str, key: &str, roots: &str| files::credential(&path(cert), &path(key), &path(roots), NOW);
    assert_eq!(load("cert.pem", "key.pem", "roots.pem").unwrap().id, id("cart"));
    for (cert, key, roots, says) in [
        ("none.pem", "key.pem", "roots.pem", "none.pem: No such file"),
        ("key.pem", "key.pem", "roots.pem", "key.pem: it holds no certificate"),
        ("cert.pem", "cert.pem", "roots.pem", "cert.pem: it holds no private key"),
        ("roots.pem", "key.pem", "roots.pem", "roots.pem: the certificate identifies nobody"),
    ] {
        let error = load(cert, key, roots).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

fn rcgen_pem(der: &[u8]) -> String {
    // Any writer will do: 64 characters a line is what readers expect at most.
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
            for digit in 0..4 {
                let c = if digit > group.len() {
                    b'='
                } else {
                    DIGITS[((bits >> (18 - 6 * digit)) & 63) as usize]
                };
                text.push(char::from(c));
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn mesh() -> Authority {
    Authority::create(&TrustDomain::parse("shop.mesh").unwrap(), NOW).unwrap()
}

fn id(service: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: TrustDomain::parse("shop.mesh").unwrap(),
        service: ServiceId::parse(service).unwrap(),
    }
}

fn foreign_request(
    algorithm: &'static rcgen::SignatureAlgorithm,
    edit: impl FnOnce(&mut rcgen::CertificateParams),
) -> Vec<u8> {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let mut params = rcgen::CertificateParams::default();
    edit(&mut params);
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
