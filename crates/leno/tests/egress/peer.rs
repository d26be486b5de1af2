//! A peer that is no Leno: it has a certificate of the mesh and speaks HTTP over mutual TLS to a sidecar's mesh port.

use std::fs;
use std::process::Command;

use rcgen::{CertificateParams, Issuer, KeyPair, SanType};

use crate::common::{free_port, until, write};
use crate::outside::Plain;
use crate::{SOON, program, proxy};

#[test]
fn curl_with_a_certificate_of_the_mesh_is_served() {
    let Some(curl) = program("curl", "curl_with_a_certificate_of_the_mesh_is_served") else { return };
    let folder = tempfile::tempdir().unwrap();
    let app = Plain::start("127.0.0.1");
    let mesh = free_port();
    let text = format!(
        "mesh: pair\nservices:\n  web:\n    protocol: http\n    health: none\n    instances:\n\
         \x20     - {{name: web-1, address: \"{}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
        app.address
    );
    let file = write(folder.path(), "mesh.yaml", &text);
    let identity = folder.path().join("identity");
    let log = folder.path().join("log");
    let arguments = ["--identity", identity.to_str().unwrap(), "--access-log", log.to_str().unwrap()];
    let _sidecar = proxy(&file, "web-1", &arguments);

    // Made by the mesh's own authority, for a service without a sidecar.
    let authority = fs::read_to_string(identity.join("authority.pem")).unwrap();
    let (cert, key) = authority.split_at(authority.find("-----BEGIN PRIVATE KEY").unwrap());
    let issuer = Issuer::from_ca_cert_pem(cert, KeyPair::from_pem(key).unwrap()).unwrap();
    let issue = |name: &str, domain: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let id = format!("spiffe://{domain}/ns/default/sa/legacy");
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        let (cert, key_file) =
            (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        fs::write(&cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert, key_file)
    };
    let call = |identity: Option<&(std::path::PathBuf, std::path::PathBuf)>, version: &str| {
        let mut command = Command::new(&curl);
        // Its name is a SPIFFE id, which curl cannot compare.
        command.args([
            "--silent",
            "--show-error",
            "--insecure",
            "--max-time",
            "10",
            "--noproxy",
            "*",
            version,
        ]);
        if let Some((cert, key)) = identity {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        let done = command.arg(format!("https://127.0.0.1:{mesh}/path")).output().unwrap();
        (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let ours = issue("ours", "pair.mesh");
    let (page, error) = call(Some(&ours), "--http1.1");
    assert_eq!(page, "outside 127.0.0.1", "{error}");
    let (page, error) = call(Some(&ours), "--http2");
    assert_eq!(page, "outside 127.0.0.1", "{error}");
    let seen = app.seen.lock().unwrap().join("");
    assert!(seen.starts_with("GET /path HTTP/1.1\r\n"), "{seen}");
    until("it is logged by its identity", SOON, || {
        fs::read_to_string(&log).unwrap().contains("\"direction\":\"inbound\",\"source\":\"legacy\"")
    });
    // Nobody else is.
    for stranger in [None, Some(&issue("theirs", "other.mesh"))] {
        let (page, error) = call(stranger, "--http1.1");
        assert!(page.is_empty() && !error.is_empty(), "{page}{error}");
    }
    assert_eq!(app.requests(), 2);
}
