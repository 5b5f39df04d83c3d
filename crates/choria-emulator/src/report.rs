//! What was seen: counts while it runs, and the report at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many nodes are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub nodes: usize,
    /// Were started.
    pub started: usize,
    /// Have a connection now.
    pub connected: usize,
    /// Wait to be provisioned now, connected and announced.
    pub waiting: usize,
    /// Put a configuration into force at least once.
    pub configured: usize,
    /// Are members of the fleet now: connected with their certificate and announced.
    pub members: usize,
    /// Ended although nobody asked for it.
    pub failed: usize,
}

/// When one node reached what, in milliseconds since the emulation began. Absent: it did not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Identity.
    pub node: String,
    /// It began to load its settings.
    pub started: Option<f64>,
    /// Its first connection was accepted.
    pub connected: Option<f64>,
    /// It had announced itself as waiting.
    pub waiting: Option<f64>,
    /// It had put its first configuration into force.
    pub configured: Option<f64>,
    /// It was asked to restart.
    pub restart: Option<f64>,
    /// It began to load its settings as a member.
    pub restarted: Option<f64>,
    /// It had announced itself as a member.
    pub member: Option<f64>,
    /// How many configurations it put into force.
    pub configurations: u32,
    /// How often it began to wait for provisioning after it had been configured.
    pub returned: u32,
    /// How often it lost a connection.
    pub disconnects: u32,
    /// Whether it is a member now.
    pub is_member: bool,
    /// Whether it waits for provisioning now.
    pub is_waiting: bool,
}

/// Half, nearly all and all but the worst of some durations, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half took no longer.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

impl Quantiles {
    /// Of these durations, in any order; `None` when there are none.
    pub fn of(mut durations: Vec<f64>) -> Option<Self> {
        durations.sort_by(f64::total_cmp);
        let at = |share| quantile(&durations, share).map(rounded);
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)? })
    }
}

/// The value that a share of sorted values does not exceed (nearest rank).
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or_else(|| sorted.last()).copied()
}

/// Milliseconds with three digits after the point: microseconds.
pub(crate) fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}

/// The end of an emulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many nodes are where.
    #[serde(flatten)]
    pub counts: Counts,
    /// Kind of their keys.
    pub key: String,
    /// When it began, in Unix seconds.
    pub began: f64,
    /// From the first start to the last node's being what it shall be, a member or waiting; to the end where that was not
    /// reached.
    pub seconds: f64,
    /// Nodes that are not what they shall be at the end.
    pub lost: usize,
    /// Nodes that were configured more than once, or fell back into provisioning after it.
    pub duplicated: usize,
    /// Connections that were lost.
    pub disconnects: u64,
    /// Ways of the nodes, see [`phases`].
    pub phases: BTreeMap<String, Quantiles>,
    /// Why nodes ended, with how many; the rarest are dropped beyond twenty.
    pub failures: BTreeMap<String, usize>,
    /// What emulated nodes leave out.
    pub left_out: Vec<String>,
    /// Each node, when asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// The ways of the nodes as they measured them: `node_connect` from the start to the first accepted connection,
/// `node_wait` from the announcement to the configuration in force, `node_restart` from there to the next start of the
/// settings, `node_rejoin` from that start to the announcement as a member, `node_total` from the first start to it.
pub fn phases(samples: &[Sample]) -> BTreeMap<String, Quantiles> {
    type Part = fn(&Sample) -> Option<f64>;
    let parts: [(&str, Part, Part); 5] = [
        ("node_connect", |s| s.started, |s| s.connected),
        ("node_wait", |s| s.waiting, |s| s.configured),
        ("node_restart", |s| s.configured, |s| s.restarted),
        ("node_rejoin", |s| s.restarted, |s| s.member),
        ("node_total", |s| s.started, |s| s.member),
    ];
    let mut all = BTreeMap::new();
    for (name, from, to) in parts {
        let took = samples.iter().filter_map(|sample| Some(to(sample)? - from(sample)?)).collect();
        if let Some(quantiles) = Quantiles::of(took) {
            all.insert(name.to_owned(), quantiles);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let durations = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Quantiles::of(durations), Some(Quantiles { p50: 50.0, p95: 95.0, p99: 99.0 }));
        assert_eq!(Quantiles::of(vec![7.0]), Some(Quantiles { p50: 7.0, p95: 7.0, p99: 7.0 }));
        assert_eq!(Quantiles::of(Vec::new()), None);
        assert_eq!(quantile(&[1.0, 2.0], 0.0), Some(1.0));
    }

    #[test]
    fn phases_hold_what_nodes_reached() {
        let done = Sample {
            started: Some(10.0),
            connected: Some(12.0),
            waiting: Some(13.0),
            configured: Some(20.0),
            restarted: Some(2021.0),
            member: Some(2030.5),
            ..Sample::default()
        };
        let stuck = Sample { started: Some(10.0), connected: Some(12.0), waiting: Some(13.0), ..Sample::default() };
        let phases = phases(&[done, stuck]);
        assert_eq!(phases["node_connect"].p99, 2.0);
        assert_eq!(phases["node_wait"].p50, 7.0);
        assert_eq!(phases["node_rejoin"].p50, 9.5);
        assert_eq!(phases["node_total"].p50, 2020.5);
    }
}
