//! `leno up` with the example shop, on real processes: what it serves, what it leaves behind, and what its users
//! notice when parts of it are killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::mesh::{
    END_MAX, Load, Mesh, Tally, alone, calls, instance, listening, load_time, nothing_left, shop,
    until_nothing_left,
};
use common::{Demo, Running, alive, family, get, leno, post, run, stderr, stdout, until, within};
use rustix::process::Signal;
use serde_json::{Value, json};

/// For a whole test.
const TEST_MAX: Duration = Duration::from_secs(150);
/// What the kill tests put on the gateway, in requests per second.
const RATE: u32 = 300;
/// From the start of the process to a mesh that serves: what the README promises, with room for a busy machine.
const READY_MAX_MS: u64 = 10_000;

#[test]
fn the_shop_serves_through_the_mesh_and_leaves_nothing_behind() {
    let _alone = alone();
    within(TEST_MAX, || {
        let mesh = Mesh::shop();
        let ready = mesh.ready["elapsed_ms"].as_u64().unwrap();
        println!("ready after {ready} ms (control plane {})", mesh.ready["control_ready_ms"]);
        assert!(ready < READY_MAX_MS, "{}", mesh.ready);

        let (status, page) = get(&format!("{}/users/1", mesh.gateway));
        assert_eq!(status, 200, "{page}");
        assert_eq!(
            (&page["favourite"]["name"], &page["cart"]["total_cents"]),
            (&json!("Teapot"), &json!(1780))
        );
        let called = page["served_by"]["called"].as_array().unwrap();
        assert_eq!(called.iter().map(|hop| &hop["service"]).collect::<Vec<_>>(), ["product", "cart"]);

        let items = format!("{}/cart/2/items", mesh.gateway);
        let (status, cart) = post(&items, r#"{"product": 1, "quantity": 1}"#);
        assert_eq!((status, &cart["served_by"]["called"][0]["service"]), (201, &json!("product")), "{cart}");
        assert_eq!(post(&items, "{").0, 400);
        assert_eq!(get(&format!("{}/users/99", mesh.gateway)).0, 404);
        assert_eq!(get(&format!("{}/nothing", mesh.gateway)).0, 404);

        look_inside(&mesh);
        mesh.stop();
    });
}

/// The commands that look at a running mesh.
fn look_inside(mesh: &Mesh) {
    let state = mesh.state.to_str().unwrap();
    let ask = |words: &[&str]| {
        let output = run(leno().args(words).args(["--state", state]));
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
        stdout(&output)
    };
    let as_json =
        |words: &[&str]| -> Value { serde_json::from_str(&ask(&[words, &["-o", "json"]].concat())).unwrap() };
    let status = as_json(&["status"]);
    assert_eq!(
        (&status["counts"]["instances"], &status["counts"]["healthy"]),
        (&json!(5), &json!(5)),
        "{status}"
    );
    assert!(ask(&["status"]).contains("5 of 5 instances healthy"));
    assert_eq!(as_json(&["services"]).as_array().unwrap().len(), 3);
    assert!(ask(&["services"]).contains("product"));
    assert_eq!(as_json(&["instances"]).as_array().unwrap().len(), 5);
    assert_eq!(as_json(&["instances", "product"]).as_array().unwrap().len(), 3);
    assert!(ask(&["instances", "product"]).contains("product-2"));

    let made = as_json(&["token", "create", "--service", "product", "--uses", "2", "--ttl", "15m"]);
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["uses_left"], 2);
    let listed = as_json(&["token", "list"]);
    assert!(listed.as_array().unwrap().iter().any(|token| token["id"] == id && token.get("token").is_none()));
    ask(&["token", "revoke", id]);
    assert!(!as_json(&["token", "list"]).as_array().unwrap().iter().any(|token| token["id"] == id));

    let second = run(leno().arg("up").arg(mesh.folder.path().join("mesh.yaml")).args(["--state", state]));
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another `leno up` uses the state directory"), "{}", stderr(&second));
}

#[test]
fn requests_are_spread_evenly_in_turn() {
    let _alone = alone();
    within(TEST_MAX, || {
        let mesh = Mesh::shop();
        let tally = calls(&format!("{}/products/1", mesh.gateway), 3_000);
        println!("{tally:?}");
        assert_eq!((tally.good, tally.failed), (3_000, 0), "{tally:?}");
        assert_eq!(tally.by_instance.len(), 3, "{tally:?}");
        assert!(tally.by_instance.values().all(|count| (950..=1_050).contains(count)), "{tally:?}");
        mesh.stop();
    });
}

#[test]
fn requests_are_spread_by_weight_between_versions() {
    let _alone = alone();
    within(TEST_MAX, || {
        let mesh = Mesh::start(&[], |text| {
            text.replace("    balance: round-robin", "    balance: round-robin\n    split: {v1: 90, v2: 10}")
        });
        let tally = calls(&format!("{}/products/1", mesh.gateway), 3_000);
        println!("{tally:?}");
        assert_eq!((tally.good, tally.failed), (3_000, 0), "{tally:?}");
        // The third instance is the only one of v2.
        let v2 = tally.by_instance.get("product-3").copied().unwrap_or(0);
        assert!((150..=450).contains(&v2), "{tally:?}");
        mesh.stop();
    });
}

#[test]
fn a_command_runs_against_the_mesh_and_its_status_is_returned() {
    let _alone = alone();
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        let file = shop(folder.path(), |text| text);
        let script = r#"
            "$0" status -o json > status.json || exit 1
            "$0" up "$1" --state "$LENO_STATE" 2> second.txt && exit 1
            echo "gateway $LENO_GATEWAY_URL" && exit 7"#;
        let mut command = leno();
        command.arg("up").arg(&file).arg("--ephemeral").current_dir(folder.path());
        command.args(["--", "sh", "-c", script, env!("CARGO_BIN_EXE_leno")]).arg(&file);
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
        // Its stdout is its own; what the mesh has to say goes elsewhere.
        let gateway = stdout(&output).trim().strip_prefix("gateway http://").unwrap().to_owned();
        assert!(stderr(&output).contains(" is ready: 5 instances"), "{}", stderr(&output));
        let status: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("status.json")).unwrap()).unwrap();
        assert_eq!(status["counts"]["healthy"], 5);
        assert!(!common::listens(gateway.rsplit(':').next().unwrap().parse().unwrap()));
        assert!(!folder.path().join(".leno").exists(), "an ephemeral mesh left its state");

        let mut killed = leno();
        killed.arg("up").arg(&file).args(["--ephemeral", "--", "sh", "-c", "kill -KILL $$"]);
        assert_eq!(run(&mut killed).status.code(), Some(137));
    });
}

#[test]
fn an_interrupted_command_ends_before_the_mesh() {
    let _alone = alone();
    within(TEST_MAX, || {
        let folder = tempfile::tempdir().unwrap();
        let file = shop(folder.path(), |text| text);
        let script = "trap 'echo ending; exit 3' TERM; echo running; while :; do sleep 0.05; done";
        let mut command = leno();
        command.arg("up").arg(&file).arg("--ephemeral").args(["--", "sh", "-c", script]);
        let mut up = Running::start(command.stderr(Stdio::null()));
        up.find(Duration::from_secs(40), |line| (line == "running").then_some(()));
        let (processes, ports) = (family(up.pid()), listening(&family(up.pid())));
        up.signal(Signal::TERM);
        up.find(Duration::from_secs(5), |line| (line == "ending").then_some(()));
        assert_eq!(up.wait(END_MAX).code(), Some(3));
        nothing_left(&processes, &ports);
    });
}

#[test]
fn a_killed_supervisor_takes_everything_with_it() {
    let _alone = alone();
    within(TEST_MAX, || {
        let mesh = Mesh::shop();
        let (processes, ports) = (family(mesh.up.pid()), listening(&family(mesh.up.pid())));
        assert!(processes.len() > 17, "{processes:?}");
        mesh.up.signal(Signal::KILL);
        until_nothing_left(&processes, Duration::from_secs(5));
        nothing_left(&processes, &ports);
        // What it left in its state directory misleads nobody.
        let state = mesh.state.to_str().unwrap();
        assert_eq!(run(leno().args(["status", "--state", state])).status.code(), Some(1));
    });
}

#[test]
fn nobody_notices_a_killed_instance() {
    let _alone = alone();
    within(TEST_MAX + load_time(), || {
        let mesh = Mesh::start(&["--restart-delay", "2"], |text| text);
        let tally = under_load(&mesh, |mesh| {
            let service = mesh.service("product-1");
            rustix::process::kill_process(common::pid(service), Signal::KILL).unwrap();
            let exited = mesh.up.event("exited", Duration::from_secs(5));
            assert_eq!(
                (&exited["name"], &exited["how"]),
                (&json!("product-1"), &json!("was ended by signal 9"))
            );
            until("product-1 shown as down", Duration::from_secs(2), || {
                health(mesh, "product-1") == "unhealthy"
            });
            recovered(mesh, "product-1");
        });
        assert_eq!(tally.failed, 0, "{tally:?}");
        mesh.stop();
    });
}

#[test]
fn nobody_notices_a_killed_sidecar() {
    let _alone = alone();
    within(TEST_MAX + load_time(), || {
        let mesh = Mesh::shop();
        let tally = under_load(&mesh, |mesh| {
            let sidecar = mesh.process("sidecar of product-2");
            rustix::process::kill_process(common::pid(sidecar), Signal::KILL).unwrap();
            let exited = mesh.up.event("exited", Duration::from_secs(5));
            assert_eq!(exited["name"], "sidecar of product-2");
            recovered(mesh, "sidecar of product-2");
        });
        assert_eq!(tally.failed, 0, "{tally:?}");
        mesh.stop();
    });
}

/// Waits until a member of product is back, and its instance gets requests.
fn recovered(mesh: &Mesh, member: &str) {
    assert_eq!(mesh.up.event("recovered", Duration::from_secs(15))["name"], member);
    let instance = member.trim_start_matches("sidecar of ");
    until("healthy again", Duration::from_secs(10), || health(mesh, instance) == "healthy");
    until("requests again", Duration::from_secs(5), || {
        get(&format!("{}/products/1", mesh.gateway)).1["served_by"]["instance"] == instance
    });
}

/// What the registry says about an instance.
fn health(mesh: &Mesh, name: &str) -> String {
    instance(&mesh.api, name).map_or_else(String::new, |found| found["health"].as_str().unwrap().to_owned())
}

#[test]
fn nobody_notices_a_killed_control_plane_and_new_instances_are_found_after_it() {
    let _alone = alone();
    within(TEST_MAX + load_time(), || {
        let mesh = Mesh::start(&["--restart-delay", "5"], |text| text);
        let load = Load::start(&mesh.gateway, RATE);
        std::thread::sleep(Duration::from_secs(1));
        let killed = Instant::now();
        let control = mesh.process("control plane");
        rustix::process::kill_process(common::pid(control), Signal::KILL).unwrap();
        let exited = mesh.up.event("exited", Duration::from_secs(5));
        assert_eq!((&exited["name"], &exited["restart_in_ms"]), (&json!("control plane"), &json!(5_000)));
        until("the control plane's return", Duration::from_secs(20), || {
            common::agent().get(format!("{}/v1/status", mesh.api)).call().is_ok()
        });
        assert!(killed.elapsed() >= Duration::from_secs(5));
        until("every proxy's return", Duration::from_secs(10), || {
            let (_, status) = get(&format!("{}/v1/status", mesh.api));
            status["counts"]["connected"] == 6 && status["counts"]["healthy"] == 5
        });
        let noticed = new_instance(&mesh);
        println!("first request {noticed:?} after its registration");
        std::thread::sleep(load_time().saturating_sub(killed.elapsed()));
        let tally = load.stop();
        println!("{tally:?}");
        assert_eq!(tally.failed, 0, "{tally:?}");
        assert!(noticed < Duration::from_secs(1), "{noticed:?}");
        mesh.stop();
    });
}

/// Starts one more instance of product by hand; how long after its registration it got its first request.
fn new_instance(mesh: &Mesh) -> Duration {
    let state = mesh.state.to_str().unwrap();
    let output = run(leno().args(["token", "create", "--service", "product", "--state", state]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let token = stdout(&output).trim().to_owned();
    let demo = Demo::start("product", &[("INSTANCE", "product-9"), ("VERSION", "v1")]);
    let run_file = mesh.run_file();
    let mut sidecar = leno();
    sidecar.args(["proxy", "--control", run_file["control"].as_str().unwrap()]);
    sidecar.args(["--service", "product", "--instance", "product-9", "--version", "v1"]);
    sidecar.args(["--app", &format!("127.0.0.1:{}", demo.port), "--mesh-listen", "127.0.0.1:0"]);
    sidecar.args(["--proxy-listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).env("LENO_TOKEN", token);
    let mut sidecar = Running::start(&mut sidecar);
    until("product-9's registration", Duration::from_secs(20), || {
        instance(&mesh.api, "product-9").is_some_and(|found| found["health"] == "healthy")
    });
    let registered = Instant::now();
    until("a request for product-9", Duration::from_secs(10), || {
        get(&format!("{}/products/1", mesh.gateway)).1["served_by"]["instance"] == "product-9"
    });
    let noticed = registered.elapsed();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait(Duration::from_secs(15)).code(), Some(0));
    noticed
}

/// Does something to a mesh a while after the load began; the load goes on for its time.
fn under_load(mesh: &Mesh, deed: impl FnOnce(&Mesh)) -> Tally {
    let load = Load::start(&mesh.gateway, RATE);
    let began = Instant::now();
    std::thread::sleep(load_time() / 4);
    deed(mesh);
    std::thread::sleep(load_time().saturating_sub(began.elapsed()));
    let tally = load.stop();
    println!("{tally:?}");
    // It was a load.
    let expected = u64::from(RATE) * load_time().as_secs();
    assert!(tally.good + tally.failed > expected / 2, "{tally:?}");
    tally
}

/// Services that nobody here wrote keep working when the shell that started them goes away politely.
#[test]
fn a_start_that_is_interrupted_leaves_nothing() {
    let _alone = alone();
    within(TEST_MAX, || {
        for wait in [10, 150, 400, 900] {
            let folder = tempfile::tempdir().unwrap();
            let file = shop(folder.path(), |text| text);
            let mut up = Running::start(leno().arg("up").arg(&file));
            std::thread::sleep(Duration::from_millis(wait));
            let processes = family(up.pid());
            up.signal(Signal::INT);
            up.wait(END_MAX);
            until("its end", Duration::from_secs(3), || !processes.iter().any(|pid| alive(*pid)));
            let left = Command::new("sh")
                .args(["-c", "pgrep -f \"$0\" || true"])
                .arg(folder.path())
                .output()
                .unwrap();
            let left = String::from_utf8_lossy(&left.stdout).trim().to_owned();
            assert!(left.is_empty() || left.lines().all(|pid| !alive(pid.parse().unwrap_or(0))), "{left}");
        }
    });
}
