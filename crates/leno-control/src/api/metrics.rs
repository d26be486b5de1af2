//! `/metrics`: the control plane's own figures, in Prometheus's text format.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;

/// The page.
pub(super) async fn page(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let (counts, generation) = api.mesh.read(|registry, _| (registry.counts(), registry.generation()));
    let tally = api.mesh.tallied();
    let figures = [
        ("leno_control_services", "gauge", "Declared services.", counts.services),
        ("leno_control_gateways", "gauge", "Declared gateways.", counts.gateways),
        ("leno_control_instances", "gauge", "Live instances.", counts.instances),
        ("leno_control_instances_healthy", "gauge", "Instances that may get requests.", counts.healthy),
        ("leno_control_proxies", "gauge", "Proxies with a lease.", counts.proxies),
        ("leno_control_proxies_connected", "gauge", "Proxies with an open stream.", counts.connected),
        ("leno_control_generation", "counter", "Changes of what proxies are told.", generation),
        ("leno_control_joins_total", "counter", "Certificates issued for join tokens.", tally.joins),
        ("leno_control_joins_refused_total", "counter", "Joins refused.", tally.joins_refused),
        ("leno_control_renewals_total", "counter", "Certificates renewed.", tally.renewals),
        ("leno_control_leases_ended_total", "counter", "Leases that ended.", tally.leases_ended),
        ("leno_control_resources_rejected_total", "counter", "Resources refused by proxies.", tally.rejected),
        (
            "leno_control_handshakes_failed_total",
            "counter",
            "Failed TLS handshakes.",
            tally.handshakes_failed,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in figures {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
