//! openssl as a peer that does not belong to the mesh: at a sidecar's mesh port it gets nothing.

use std::process::{Command, Stdio};

use crate::mesh::{Mesh, free_address};
use crate::{program, run};

#[test]
fn openssl_without_our_identity_is_refused() {
    let test = "tls::openssl_without_our_identity_is_refused";
    let Some(openssl) = program("openssl", test) else { return };
    let mesh = Mesh::around(free_address());
    let port = mesh.callee.address("/mesh").to_string();
    let folder = mesh.folder.path();
    // A certificate of somebody else's authority, with the very name that a sidecar would have.
    let made = Command::new(&openssl)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=caller",
            "-addext",
            "subjectAltName=URI:spiffe://outside.mesh/ns/default/sa/caller",
        ])
        .arg("-keyout")
        .arg(folder.join("stranger.key"))
        .arg("-out")
        .arg(folder.join("stranger.pem"))
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let stranger = ["-cert", "stranger.pem", "-key", "stranger.key"].map(|word| {
        if word.starts_with('-') { word.to_owned() } else { folder.join(word).to_string_lossy().into_owned() }
    });
    let cases: [(&str, Vec<String>); 3] = [
        ("no certificate", vec!["-tls1_3".into()]),
        ("another authority's", std::iter::once("-tls1_3".to_owned()).chain(stranger.clone()).collect()),
        ("TLS 1.2", std::iter::once("-tls1_2".to_owned()).chain(stranger).collect()),
    ];
    for (what, arguments) in cases {
        let mut command = Command::new("sh");
        // Keeps its side open for a moment: TLS 1.3's refusal comes after the client believes that it is done.
        command.args(["-c", "(sleep 1; printf x; sleep 1) | \"$@\"", "sh"]).arg(&openssl);
        command
            .args(["s_client", "-connect", &port, "-alpn", "leno/1", "-servername", "app"])
            .args(arguments);
        let (said, error, _) = run(&mut command);
        let said = String::from_utf8_lossy(&said);
        assert!(error.contains("alert"), "{what}: no alert: {error}\n{said}");
        assert!(!error.contains("unknown option"), "{what}: {error}");
    }
}
