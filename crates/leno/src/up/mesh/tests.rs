//! The loop with stand-ins: a shell script plays Leno's processes, a small server in the test plays the registry and
//! the admin servers. The real ones are in `tests/up.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use axum::routing::{get, post};
use tempfile::TempDir;

use crate::output::Output;

use super::super::plan::{MemberPlan, Program};
use super::super::state::StateChoice;
use super::super::supervise::{MemberSpec, Rank};
use super::*;

/// Plays `leno`: notes its beginnings and ends in the file `$NOTES`.
const STAND_IN: &str = r#"#!/bin/sh
cd "${0%/*}"
name=$1; [ "$1" = hold ] && name=service
note() { echo "$name $1" >> notes; }
note starts
trap 'note ends; exit 0' TERM
case $1 in
control) mkdir -p state/control; echo secret > state/control/api-token; echo '{"event":"ready"}' ;;
sidecar|gateway) [ "$LENO_TOKEN" = made ] || exit 1
    echo '{"event":"ready","admin":"ADMIN","gateway":"127.0.0.1:1"}' ;;
hold) shift 2; . ./service ;;
esac
while :; do sleep 0.02; done
"#;

struct Fixture {
    folder: TempDir,
    plan: Plan,
    state: State,
}

/// One instance with its sidecar, a control plane and a gateway; `service` is what the command does.
async fn fixture(service: &str, healthy: bool) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = if healthy { "healthy" } else { "unhealthy" };
    let instances = json!([{
        "name": "a-1", "service": "a", "transport": "mesh", "address": "127.0.0.1:1", "weight": 1,
        "health": health, "reason": "it coughs", "connected": true,
    }]);
    let token = json!({
        "id": "1", "subject": "a", "kind": "sidecar", "uses_left": 1, "expires_unix": 1, "token": "made",
    });
    let routes = Router::new()
        .route("/ready", get(|| async { "ready" }))
        .route("/v1/instances", get(move || async move { instances.to_string() }))
        .route("/v1/tokens", post(move || async move { token.to_string() }));
    tokio::spawn(async { axum::serve(listener, routes).await });

    let leno = folder.path().join("leno");
    fs::write(&leno, STAND_IN.replace("ADMIN", &address.to_string())).unwrap();
    fs::set_permissions(&leno, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("service"), service).unwrap();
    let state = State::open(&StateChoice::Named(&folder.path().join("state")), "test", 1).unwrap();

    let member = |name: &str, kind, rank, after: &[MemberId], program, joins, ready| MemberPlan {
        name: name.to_owned(),
        kind,
        spec: MemberSpec { rank, after: after.to_vec() },
        program,
        joins,
        ready,
        admin: None,
    };
    let leno = |word: &str| Program::Leno(vec![word.into()]);
    let command = Program::Held {
        argv: vec!["service".into()],
        folder: folder.path().to_owned(),
        env: vec![("GREETING".to_owned(), "good morning".to_owned())],
        place: None,
    };
    let service = Some(Joins::Service("a".to_owned()));
    let edge = Some(Joins::Gateway("edge".to_owned()));
    let members = vec![
        member("control plane", Kind::Control, Rank::Control, &[], leno("control"), None, ReadyBy::Line),
        member(
            "sidecar of a-1",
            Kind::Sidecar,
            Rank::Sidecar,
            &[0],
            leno("sidecar"),
            service,
            ReadyBy::Admin,
        ),
        member("a-1", Kind::Service, Rank::App, &[0], command, None, ReadyBy::Health(0)),
        member("gateway edge", Kind::Gateway, Rank::Gateway, &[1, 2], leno("gateway"), edge, ReadyBy::Admin),
    ];
    let instance = InstancePlan {
        name: "a-1".to_owned(),
        service: "a".to_owned(),
        version: None,
        sidecar: 1,
        command: Some(2),
        admin: address,
    };
    let plan = Plan {
        mesh: "test".to_owned(),
        api: address,
        control: address,
        members,
        instances: vec![instance],
        gateway_paths: vec![Vec::new()],
        gateway_schemes: vec!["http"],
        gateway_admins: vec![address],
    };
    Fixture { folder, plan, state }
}

impl Fixture {
    /// Runs the mesh with `script` as its command; the result and what the stand-ins noted.
    async fn run(self, script: &str, start_max: Duration) -> (Result<u8, Failure>, Vec<String>) {
        let Self { folder, plan, state } = self;
        let timing =
            Timing { start_max, restart_first: Duration::from_millis(50), stop_max: Duration::from_secs(5) };
        let leno = folder.path().join("leno");
        let options = Options { timing, echo: false, leno, began: Clock::now() };
        let argv = ["sh", "-c", script, "sh"].map(Into::into).into_iter();
        let command = Command::new(argv.chain([folder.path().into()]).collect());
        let view = View::new(Output::Text, true, false);
        let running = Mesh::run(plan, state, options, Some(command), view);
        let result = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap();
        (result, notes(folder.path()))
    }
}

fn notes(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join("notes")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The notes of `kind`, in order.
fn of<'a>(notes: &'a [String], kind: &str) -> Vec<&'a str> {
    notes.iter().filter_map(|note| note.strip_suffix(kind)).map(str::trim).collect()
}

#[tokio::test]
async fn a_mesh_starts_in_order_runs_the_command_and_stops_in_reverse() {
    let (result, notes) = fixture("", true).await.run("exit 5", Duration::from_secs(30)).await;
    assert_eq!(result.unwrap(), 5);
    let started = of(&notes, "starts");
    assert_eq!((started[0], started[3], started.len()), ("control", "gateway", 4), "{notes:?}");
    assert_eq!(of(&notes, "ends"), ["gateway", "sidecar", "service", "control"]);
}

#[tokio::test]
async fn what_a_service_leaves_in_its_group_is_ended_too() {
    // Deaf to SIGTERM, and nobody waits for it.
    let service = "(trap '' TERM; exec sleep 1000) > /dev/null 2>&1 & echo left $! >> notes";
    let script = "kill -0 $(sed -n 's/^left //p' \"$1/notes\")";
    let (result, notes) = fixture(service, true).await.run(script, Duration::from_secs(30)).await;
    assert_eq!(result.unwrap(), 0, "{notes:?}");
    let pid = notes.iter().find_map(|note| note.strip_prefix("left ")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[tokio::test]
async fn the_command_and_the_service_find_their_variables() {
    let service = "echo \"$GREETING\" > greeting";
    let script = "cd \"$1\"; [ \"$(cat greeting)\" = 'good morning' ] && [ \"$LENO_API_TOKEN\" = secret ] \
        && [ \"$LENO_GATEWAY_URL\" = http://127.0.0.1:1 ] && [ -d \"$LENO_STATE\" ] && [ -n \"$LENO_API_URL\" ]";
    let (result, _) = fixture(service, true).await.run(script, Duration::from_secs(30)).await;
    assert_eq!(result.unwrap(), 0);
}

#[tokio::test]
async fn a_service_that_dies_is_started_again() {
    // The first process ends when the command says so; the command waits for the second.
    let service = "trap 'exit 1' USR1; echo $$ > pid";
    let script = "cd \"$1\"; kill -USR1 $(cat pid); for i in $(seq 200); do
        [ $(grep -c 'service starts' notes) = 2 ] && exit 0; sleep 0.05; done; exit 1";
    let (result, notes) = fixture(service, true).await.run(script, Duration::from_secs(30)).await;
    assert_eq!(result.unwrap(), 0, "{notes:?}");
}

#[tokio::test]
async fn a_service_that_exits_at_once_ends_the_start_with_its_last_words() {
    let (result, notes) =
        fixture("echo no shelf left >&2; exit 4", false).await.run("exit 0", Duration::from_secs(30)).await;
    let text = result.unwrap_err().to_string();
    assert_eq!(text, "a-1 exited with status 4 (3 times while the mesh started)\n    | no shelf left");
    assert_eq!(of(&notes, "starts").iter().filter(|name| **name == "service").count(), 3);
    assert_eq!(of(&notes, "ends"), ["sidecar", "control"]);
}

#[tokio::test]
async fn a_start_that_takes_too_long_says_who_is_missing_and_why() {
    let (result, notes) = fixture("echo thinking", false).await.run("exit 0", Duration::from_secs(2)).await;
    let text = result.unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "test is not ready after 2 s",
            "  a-1 is not healthy: it coughs",
            "    | thinking",
            "  gateway edge waits for a-1",
        ]
    );
    assert_eq!(of(&notes, "ends"), ["sidecar", "service", "control"]);
}
