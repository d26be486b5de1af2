//! Many requests at the same moment at a pair of sidecars that has not connected yet, with wrk as the client.

use std::process::Command;

use crate::mesh::{Folder, Mesh, Process, free_address};
use crate::{program, run};

#[test]
fn a_cold_pair_takes_a_burst() {
    let test = "burst::a_cold_pair_takes_a_burst";
    let (Some(nginx), Some(wrk)) = (program("nginx", test), program("wrk", test)) else { return };
    let folder = Folder::new();
    let address = free_address();
    let root = folder.path().display();
    let configuration = folder.file(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr;
            events {{ worker_connections 1000; }}
            http {{
                access_log off;
                client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                server {{ listen {address}; location / {{ return 200 fine; }} }}
            }}"
        ),
    );
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(configuration).args(["-e", "stderr"]);
    let _nginx = Process::serve(&mut command, address);
    let mesh = Mesh::around(address);
    let entry = mesh.caller.address("/outbound/app");
    // More than the streams that a peer has to accept before it has said how many it does.
    let mut command = Command::new(wrk);
    command.args(["-t1", "-c400", "-d1s", "--timeout", "20s"]).arg(format!("http://{entry}/"));
    let (said, error, status) = run(&mut command);
    let said = String::from_utf8_lossy(&said);
    assert!(status.success() && said.contains("requests in"), "{said}{error}");
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}{error}");
}
