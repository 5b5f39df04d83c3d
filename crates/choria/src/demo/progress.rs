//! How far each node has come, and how that is shown. The states are plain data; views only draw them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use choria_protocol::lifecycle::{Event, Kind, PROVISION_MODE_SERVER, SERVER};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::text::go_millis;

/// How far a node has come. Each step includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// Its process runs.
    Started,
    /// It said that it waits to be provisioned.
    Found,
    /// Its token and certificate request passed, and the helper answered.
    Checked,
    /// It has its configuration.
    Configured,
    /// It came back as a member of the fleet.
    Member,
}

impl Step {
    const SHOWN: [Self; 4] = [Self::Found, Self::Checked, Self::Configured, Self::Member];

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Found => "found, waits to be provisioned",
            Self::Checked => "checked, certificate signed",
            Self::Configured => "configured",
            Self::Member => "is a fleet member",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Found => "found",
            Self::Checked => "checked",
            Self::Configured => "configured",
            Self::Member => "members",
        }
    }
}

/// One node's way.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Node {
    /// Identity.
    pub identity: String,
    /// The last step.
    pub step: Step,
    /// When each step was seen, in seconds since its process started.
    pub seconds: BTreeMap<&'static str, f64>,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Progress {
    nodes: BTreeMap<String, Node>,
    view: View,
}

impl Progress {
    /// Nobody has done anything yet.
    pub(crate) fn new(identities: &[String], view: View) -> Self {
        let node =
            |identity: &String| Node { identity: identity.clone(), step: Step::Started, seconds: BTreeMap::new() };
        Self { nodes: identities.iter().map(|identity| (identity.clone(), node(identity))).collect(), view }
    }

    /// Notes a lifecycle event.
    pub(crate) fn event(&mut self, event: &Event, after: Duration) {
        let step = match (&event.kind, event.component.as_str()) {
            (Kind::Startup { .. } | Kind::Alive { .. }, PROVISION_MODE_SERVER) => Step::Found,
            (Kind::Provisioned, _) => Step::Configured,
            (Kind::Startup { .. } | Kind::Alive { .. }, SERVER) => Step::Member,
            _ => return,
        };
        self.reached(&event.identity, step, after);
    }

    /// Notes that a node has come this far. Steps back are not taken: events may arrive late.
    pub(crate) fn reached(&mut self, identity: &str, step: Step, after: Duration) {
        let Some(node) = self.nodes.get_mut(identity) else { return };
        if node.step >= step {
            return;
        }
        node.step = step;
        node.seconds.insert(step.label(), (after.as_secs_f64() * 1e3).round() / 1e3);
        self.view.reached(identity, step, after, &self.nodes);
    }

    /// Whether everybody is a member.
    pub(crate) fn complete(&self) -> bool {
        self.nodes.values().all(|node| node.step == Step::Member)
    }

    /// Nodes that are not members yet.
    pub(crate) fn missing(&self) -> Vec<&Node> {
        self.nodes.values().filter(|node| node.step != Step::Member).collect()
    }

    /// Everything, in the order of node numbers.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.nodes.values().cloned().collect();
        nodes.sort_by_key(|node| (node.identity.len(), node.identity.clone()));
        nodes
    }

    /// Ends the drawing.
    pub(crate) fn finish(&mut self) {
        self.view.finish();
    }

    /// Says something beside the drawing.
    pub(crate) fn say(&self, text: &str) {
        self.view.say(text);
    }
}

/// How progress is shown. It is talk, so it goes to stderr.
#[derive(Debug)]
pub(crate) enum View {
    /// Bars on a terminal.
    Bars {
        /// Draws them.
        all: MultiProgress,
        /// One for each shown step.
        bars: Vec<ProgressBar>,
    },
    /// A line for each step.
    Lines,
}

impl View {
    /// Bars where they can be redrawn, lines elsewhere.
    pub(crate) fn choose(nodes: usize, terminal: bool) -> Self {
        if !terminal {
            return Self::Lines;
        }
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix:>11} [{bar:40}] {pos} / {len}")
            .map(|style| style.progress_chars("=> "))
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bars = Step::SHOWN
            .iter()
            .map(|step| {
                let bar = all.add(ProgressBar::new(nodes as u64).with_style(style.clone()).with_prefix(step.label()));
                bar.tick();
                bar
            })
            .collect();
        Self::Bars { all, bars }
    }

    fn reached(&self, identity: &str, step: Step, after: Duration, nodes: &BTreeMap<String, Node>) {
        match self {
            Self::Bars { bars, .. } => {
                for (bar, shown) in bars.iter().zip(Step::SHOWN) {
                    bar.set_position(nodes.values().filter(|node| node.step >= shown).count() as u64);
                }
            }
            Self::Lines => self.say(&format!("{identity:<14} {} ({})", step.words(), go_millis(after))),
        }
    }

    fn say(&self, text: &str) {
        match self {
            // Printing through the drawing keeps both apart; without a terminal left there is nobody to read it.
            Self::Bars { all, .. } => drop(all.println(text)),
            Self::Lines => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn finish(&self) {
        if let Self::Bars { bars, .. } = self {
            bars.iter().for_each(ProgressBar::abandon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, component: &str) -> Event {
        Event {
            kind,
            id: "1".to_owned(),
            identity: "node1.demo".to_owned(),
            component: component.to_owned(),
            timestamp: 1,
        }
    }

    #[test]
    fn events_move_a_node_forward_only() {
        let mut progress = Progress::new(&["node1.demo".to_owned(), "node2.demo".to_owned()], View::Lines);
        let startup = || Kind::Startup { version: "1".to_owned() };
        progress.event(&event(startup(), SERVER), Duration::from_millis(300));
        progress.event(&event(startup(), PROVISION_MODE_SERVER), Duration::from_millis(400));
        progress.event(&event(startup(), "broker"), Duration::from_millis(400));
        assert_eq!(progress.nodes()[0].step, Step::Member);
        assert_eq!(progress.nodes()[0].seconds, BTreeMap::from([("members", 0.3)]));
        assert!(!progress.complete());
        assert_eq!(progress.missing().len(), 1);
        progress.reached("stranger", Step::Member, Duration::ZERO);
        progress.reached("node2.demo", Step::Member, Duration::ZERO);
        assert!(progress.complete());
    }
}
