//! One limit over several instances, shared out by the control plane.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::mesh::{Mesh, alone};
use crate::common::{self, free_port, until};
use crate::{App, SOON, ask, metrics};

const REQUESTS: f64 = 100.0;
const BURST: f64 = 20.0;
/// What one fault may cost besides: what comes in during a lease, as the control plane counts it.
const LEASE: f64 = 2.5;

#[test]
fn three_instances_share_one_limit_by_what_each_needs_and_evenly_without_a_control_plane() {
    let _one = alone();
    let apps = [App::start(), App::start(), App::start()];
    let [gateway, first, second, third] = [(); 4].map(|()| free_port());
    let admin = [first, second, third];
    let mut text = format!(
        "mesh: shared\ngateway:\n  listen: 127.0.0.1:{gateway}\n  routes: [{{to: server}}]\nservices:\n  server:\n    \
         protocol: http\n    health: none\n    balance: random\n    outliers: none\n    rate_limits: [{{name: all, requests: 100, \
         burst: 20, scope: mesh}}]\n    instances:\n"
    );
    // Nearly all of the load comes to the first one.
    for (at, weight) in [30, 1, 1].into_iter().enumerate() {
        text += &format!(
            "      - {{name: s{at}, address: \"{}\", weight: {weight}, admin: \"127.0.0.1:{}\"}}\n",
            apps[at].address, admin[at]
        );
    }
    let mesh = Mesh::start(&["--capture", "off"], |_| text);
    let address = ([127, 0, 0, 1], gateway).into();
    let share = |at: usize| -> f64 {
        let text = metrics(([127, 0, 0, 1], admin[at]).into());
        let line =
            text.lines().find_map(|line| line.strip_prefix("leno_rate_limit_share{limit=\"server/all\"} "));
        line.unwrap().parse().unwrap()
    };
    let got = || -> f64 { apps.iter().map(|app| f64::from(app.got("/shared"))).sum() };

    let (over, begun) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = ask(address, "GET /shared HTTP/1.1");
                    let limited = answer.starts_with("http/1.1 429") && answer.contains("rate_limited");
                    assert!(limited || answer.starts_with("http/1.1 200"), "{answer}");
                    thread::sleep(Duration::from_millis(15));
                }
            });
        }
        let end = End(&over);
        until("the first one has most of the limit", SOON, || share(0) > 0.5);
        let (before, since) = (got(), Instant::now());
        thread::sleep(Duration::from_secs(6));
        let (passed, took) = (got() - before, since.elapsed().as_secs_f64());
        println!("{passed} requests passed in {took:.2} s of a limit of {REQUESTS} in a second");
        assert!(passed >= 0.75 * REQUESTS * took, "{passed} in {took} s: the limit is not used");
        let most = BURST + 3.0 + REQUESTS * begun.elapsed().as_secs_f64();
        assert!(got() <= most, "{} passed, {most} may have", got());

        // A control plane that hangs: each has a third, and then they share again.
        let number = mesh.process("control plane");
        let control = common::pid(number);
        rustix::process::kill_process(control, Signal::STOP).unwrap();
        until("each has a third", SOON, || (0..3).all(|at| (share(at) - 1.0 / 3.0).abs() < 0.001));
        let bound = |faults: f64| BURST + 3.0 + REQUESTS * (begun.elapsed().as_secs_f64() + faults * LEASE);
        assert!(got() <= bound(1.0), "{} passed, {} may have", got(), bound(1.0));
        rustix::process::kill_process(control, Signal::CONT).unwrap();
        until("the first one has most of it again", SOON, || share(0) > 0.5);
        // One that is killed and comes back knows nothing; shares go on as they were.
        rustix::process::kill_process(control, Signal::KILL).unwrap();
        until("another one is there", SOON, || {
            let run = mesh.run_file();
            let found = run["processes"].as_array().unwrap().iter().find(|it| it["kind"] == "control");
            found.unwrap()["pid"].as_u64().is_some_and(|pid| pid != u64::from(number))
        });
        thread::sleep(Duration::from_secs(4));
        until("the first one has most of it still", SOON, || share(0) > 0.5);
        println!("{} passed in {:.2} s with two faults", got(), begun.elapsed().as_secs_f64());
        assert!(got() <= bound(2.0), "{} passed, {} may have", got(), bound(2.0));
        drop(end);
    });
    mesh.stop();
}

/// Ends the load, also when a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
