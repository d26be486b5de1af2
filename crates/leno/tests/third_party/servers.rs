//! Servers that people really run behind a mesh, with curl as the client.

use std::process::Command;

use crate::mesh::{Folder, Mesh, Process, free_address};
use crate::{program, run};

/// Bytes that show a shift, a cut or a repetition.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ u8::try_from(at / 251 % 256).unwrap()).collect()
}

#[test]
fn nginx_serves_files() {
    let test = "servers::nginx_serves_files";
    let (Some(nginx), Some(curl)) = (program("nginx", test), program("curl", test)) else { return };
    let folder = Folder::new();
    let large = pattern(3_000_000);
    folder.file("large", &large);
    folder.file("small", "a small file\n");
    let address = free_address();
    let root = folder.path().display();
    let configuration = folder.file(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr;
            events {{ worker_connections 256; }}
            http {{
                access_log off; absolute_redirect off; default_type application/octet-stream; root {root};
                client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                server {{ listen {address}; location /moved {{ return 301 /small; }} }}
            }}"
        ),
    );
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(configuration).args(["-e", "stderr"]);
    let _nginx = Process::serve(&mut command, address);
    let mesh = Mesh::around(address);
    for (way, entry) in mesh.entries() {
        let get = |arguments: &[&str], path: &str| {
            run(Command::new(&curl)
                .args(["-sS", "--fail-early", "-m", "20"])
                .args(arguments)
                .arg(format!("http://{entry}{path}")))
        };
        let (body, error, _) = get(&[], "/large");
        assert!(body == large, "{way}: {} bytes of {}; {error}", body.len(), large.len());
        let (body, error, _) = get(&["-r", "1000000-1000999"], "/large");
        assert!(body == large[1_000_000..1_001_000], "{way}: a range; {error}");
        let (head, error, _) = get(&["-I"], "/large");
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-length: 3000000"),
            "{way}: {head} {error}"
        );
        let (body, ..) = get(&["-w", "%{http_code}", "-o", "/dev/null"], "/absent");
        assert_eq!(body, b"404", "{way}");
        let (body, ..) = get(&["-L"], "/moved");
        assert_eq!(body, b"a small file\n", "{way}");
        // Several requests on one connection, then conditional ones.
        let (body, ..) =
            run(Command::new(&curl)
                .args(["-sS", "-m", "20", "-w", "%{num_connects};"])
                .args((0..3).flat_map(|_| {
                    [format!("http://{entry}/small"), "-o".to_owned(), "/dev/null".to_owned()]
                })));
        assert_eq!(body, b"1;0;0;", "{way}: one connection for three requests");
        let (head, ..) = get(&["-D", "-", "-o", "/dev/null"], "/small");
        let head = String::from_utf8_lossy(&head).into_owned();
        let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap_or_default();
        let (code, ..) = get(
            &["-H", &format!("If-None-Match: {etag}"), "-w", "%{http_code}", "-o", "/dev/null"],
            "/small",
        );
        assert_eq!(code, b"304", "{way}: {head}");
    }
}

#[test]
fn pythons_http_server_ends_bodies_by_closing() {
    let test = "servers::pythons_http_server_ends_bodies_by_closing";
    let (Some(python), Some(curl)) = (program("python3", test), program("curl", test)) else { return };
    let folder = Folder::new();
    let large = pattern(1_000_000);
    folder.file("large", &large);
    let address = free_address();
    let mut command = Command::new(python);
    command.args(["-m", "http.server", &address.port().to_string(), "--bind", "127.0.0.1", "--directory"]);
    let _server = Process::serve(command.arg(folder.path()), address);
    let mesh = Mesh::around(address);
    for (way, entry) in mesh.entries() {
        for _ in 0..3 {
            let (body, error, _) =
                run(Command::new(&curl).args(["-sS", "-m", "20", &format!("http://{entry}/large")]));
            assert!(body == large, "{way}: {} bytes of {}; {error}", body.len(), large.len());
        }
        let (body, ..) = run(Command::new(&curl).args(["-sS", "-m", "20", &format!("http://{entry}/")]));
        assert!(String::from_utf8_lossy(&body).contains("href=\"large\""), "{way}: the listing");
    }
}
