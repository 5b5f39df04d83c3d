//! `dashboards/provisioner.json` shows metrics that exist, with labels that they have.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use choria_provisioner::metrics::Metrics;
use choria_testkit::dashboard;

#[test]
fn the_dashboard_shows_what_the_provisioner_has() {
    let metrics = Metrics::new("lab");
    // Series by action and by reason exist once something happened.
    metrics.rpc_time("choria_provision#jwt", Duration::from_millis(1));
    metrics.rpc_error("choria_provision#jwt");
    metrics.refuse("jwt_expired");
    let page = metrics.render();
    let used = dashboard::used("provisioner.json");
    let (broker, ours): (Vec<_>, Vec<_>) = used
        .into_iter()
        .partition(|used| used.metric.starts_with("choria_broker_") || used.metric.starts_with("choria_network_"));
    assert!(!broker.is_empty(), "the broker's part is checked by the broker");
    dashboard::assert_shown(&ours, &page);
    // What an operator must be able to see: spec 04 §9, and what is ours.
    for name in [
        "provisioned",
        "provision_errors",
        "refused",
        "verified",
        "verify_missing",
        "deferred",
        "work_queue_entries",
        "phase_time_bucket",
        "paused",
        "busy_workers",
        "event_discovered",
        "discover_cycles",
        "helper_errors",
        "rpc_errors",
        "discovery_errors",
        "helper_time_sum",
        "rpc_time_sum",
    ] {
        let name = format!("choria_provisioner_{name}");
        assert!(ours.iter().any(|used| used.metric == name), "{name} is on no panel");
    }
}
