//! A new version gets a tenth of the requests, then half, then all, while they come.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::common::mesh::{Load, Tally, alone};
use crate::common::{Running, free_port, get, leno, until, within, write};

/// Requests a second, and for how long at each split: the share of a tenth is then within 3 % of the requests nearly always
/// (four standard deviations of 1,600 requests that fall by chance, and Leno's fall by turns).
const RATE: u32 = 400;
const EACH: Duration = Duration::from_secs(4);
const BOUND: f64 = 0.03;

#[test]
fn a_canary_is_rolled_out_under_load_without_a_failure() {
    let _alone = alone();
    within(Duration::from_secs(150), || {
        let folder = tempfile::tempdir().unwrap();
        let listen = free_port();
        let text = |old: u32, new: u32| {
            format!(
                "mesh: canary\ngateway:\n  listen: 127.0.0.1:{listen}\n  routes:\n    - {{path: /users, rewrite: /products, to: product}}\n    \
                 - {{to: product}}\nservices:\n  \
                 product:\n    run: leno demo product\n    health: /healthz\n    instances:\n      - {{version: v1, replicas: 2}}\n      \
                 - {{version: v2}}\n    split: {{v1: {old}, v2: {new}}}\n"
            )
        };
        let file = write(folder.path(), "mesh.yaml", &text(90, 10));
        let state = folder.path().join("state");
        let mut command = leno();
        command.args(["up", "-o", "json"]).arg(&file).arg("--state").arg(&state);
        let up = Running::start(&mut command);
        let ready = up.event("ready", Duration::from_secs(40));
        let (gateway, api) = (ready["gateways"][0].as_str().unwrap(), ready["api"].as_str().unwrap());
        for (old, new) in [(90, 10), (50, 50), (0, 100)] {
            let before = Load::start(gateway, RATE);
            let generation = |api: &str| get(&format!("{api}/v1/status")).1["generation"].as_u64();
            let known = generation(api);
            let next = folder.path().join("next.yaml");
            fs::write(&next, text(old, new)).unwrap();
            // At once: no half of a file is ever read.
            fs::rename(next, &file).unwrap();
            if (old, new) != (90, 10) {
                until("the new split", Duration::from_secs(10), || generation(api) > known);
                until("every proxy to hold it", Duration::from_secs(10), || held(api));
            }
            none_failed(&before.stop());
            let during = Load::start(gateway, RATE);
            std::thread::sleep(EACH);
            let tally = during.stop();
            none_failed(&tally);
            let of_new: u64 =
                tally.by_instance.iter().filter(|(name, _)| **name == "product-3").map(|(_, n)| n).sum();
            let share = of_new as f64 / tally.good as f64;
            println!("{old}/{new}: {of_new} of {} requests to v2", tally.good);
            assert!((share - f64::from(new) / 100.0).abs() < BOUND, "{old}/{new}: {share} {tally:?}");
            assert!(new < 100 || of_new == tally.good, "{tally:?}");
        }
    });
}

fn none_failed(tally: &Tally) {
    assert!(tally.failed == 0 && tally.good > 0, "{tally:?}");
}

/// True when every proxy has acknowledged the newest generation.
fn held(api: &str) -> bool {
    let status = get(&format!("{api}/v1/status")).1;
    let proxies = get(&format!("{api}/v1/proxies")).1;
    let newest = &status["generation"];
    let all: &[Value] = proxies.as_array().map_or(&[], Vec::as_slice);
    all.iter().all(|proxy| proxy["generation_acknowledged"].as_u64() >= newest.as_u64())
}
