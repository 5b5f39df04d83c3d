//! What `choria provisioner status` and `explain` show: the engine's state in words and numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::history::{Happening, Record, Stamp};
use super::nodes::Node;
use crate::control::types::{
    Attempt, Explanation, Helper, HelperFailure, Limits, Next, Nodes, Note, Rate, Refusal, RefusalCount, Seen, Status,
    Step, Totals, Waiting,
};
use crate::flow::View;
use crate::queue::Standing;

/// Turns the engine's times into times of the calendar.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    /// Now, for waits.
    pub mono: Instant,
    /// Now, milliseconds since 1970.
    pub unix_ms: i64,
}

impl Calendar {
    fn at(&self, time: Instant) -> i64 {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        match time.checked_duration_since(self.mono) {
            Some(ahead) => self.unix_ms.saturating_add(millis(ahead)),
            None => self.unix_ms.saturating_sub(millis(self.mono.saturating_duration_since(time))),
        }
    }
}

/// The answer to `explain`.
#[derive(Debug)]
pub enum Explained {
    /// What is known.
    Known(Box<Explanation>),
    /// Nothing, and the names that something is known of, for finding the one that was meant.
    Unknown(Vec<Arc<str>>),
}

impl Engine {
    /// How it is going. Who answers and how the connection is, the caller adds.
    pub fn status(&mut self, calendar: Calendar) -> Status {
        let now = calendar.mono;
        let waiting = |identity: &str, since: Instant| Waiting {
            identity: identity.to_owned(),
            since_ms: calendar.at(since),
            waited_s: seconds(now.saturating_duration_since(since)),
        };
        let oldest_in_flight = self.nodes.values().min_by_key(|node| node.started);
        let (last_minute, last_hour, per_second) = self.books.pace.read(now);
        let mut status = Status {
            paused: self.paused,
            draining: self.draining,
            held_by: self.held_by().map(str::to_owned),
            nodes: self.node_counts(),
            oldest_waiting: self.scheduler.next_waiting().map(|(identity, since)| waiting(identity, since)),
            oldest_in_flight: oldest_in_flight.map(|node| waiting(node.flow.identity(), node.started)),
            rate: Rate { last_minute, last_hour, per_second },
            totals: self.totals(),
            refusals: self.refusal_counts(calendar),
            helper: self.helper_state(calendar),
            limits: self.limits(),
            ..Status::default()
        };
        status.connection.connected = self.connected;
        status.connection.since_ms = calendar.at(self.books.connection_since);
        status.process.started_ms = calendar.at(self.books.began);
        status.process.uptime_s = seconds(now.saturating_duration_since(self.books.began));
        status
    }

    fn node_counts(&self) -> Nodes {
        let counts = self.scheduler.counts();
        Nodes {
            queued: counts.queued,
            probing: counts.probing,
            silent: counts.silent,
            engaged: counts.engaged,
            waiting_for_helper: self.waiting_for_helper(),
            at_helper: self.helpers_running,
            resting: counts.resting,
            waiting_to_be_seen: counts.waiting_to_be_seen,
            settling: counts.settling,
            expected_home: self.homecoming.expected(),
        }
    }

    /// Nodes that wait for a free helper. The queue may hold some that were broken off, so they are counted.
    fn waiting_for_helper(&self) -> usize {
        self.helper_queue.iter().filter(|flow| self.nodes.get(flow).is_some_and(Node::waits_for_helper)).count()
    }

    /// What keeps the next node from starting, or would if there were one.
    fn held_by(&self) -> Option<&'static str> {
        if self.draining {
            Some("draining")
        } else if self.paused {
            Some("paused")
        } else if !self.connected {
            Some("connection")
        } else if self.helper_queue.len() >= self.helper_backlog() {
            Some(self.rates.held().map_or("helper", |(limit, _)| limit))
        } else if self.scheduler.worked() >= self.scheduler.limits().max_nodes {
            let has_limit = self.scheduler.limits().max_nodes < self.settings.max_nodes;
            Some(self.rates.held().filter(|_| has_limit).map_or("max_nodes", |(limit, _)| limit))
        } else {
            None
        }
    }

    fn totals(&self) -> Totals {
        let metrics = &self.metrics;
        Totals {
            by_event: metrics.event_discovered.get(),
            by_discovery: metrics.discovered.get(),
            by_registration: metrics.registration_discovered.get(),
            provisioned: metrics.provisioned.get(),
            errors: metrics.provision_errors.get(),
            deferred: metrics.deferred.get(),
            absent: metrics.absent.get(),
            verified: metrics.verified.get(),
            missing: metrics.verify_missing.get(),
            returned: metrics.returned.get(),
        }
    }

    fn refusal_counts(&self, calendar: Calendar) -> Vec<RefusalCount> {
        let count = |(reason, count): (&'static str, u64)| {
            let last = self.books.refusals.get(reason);
            RefusalCount {
                reason: reason.to_owned(),
                count,
                last_ms: last.map_or(0, |last| calendar.at(last.at)),
                last: last.map(|last| last.detail.clone()).unwrap_or_default(),
                node: last.and_then(|last| last.node.clone()),
            }
        };
        let mut counts: Vec<RefusalCount> = self.metrics.refusals().into_iter().map(count).collect();
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
        counts
    }

    fn helper_state(&self, calendar: Calendar) -> Helper {
        let (calls, total) = (self.metrics.helper_time.count(), self.metrics.helper_time.seconds());
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean_s = if calls == 0 { 0.0 } else { total / calls as f64 };
        Helper {
            kind: String::new(),
            busy: self.helpers_running,
            capacity: self.settings.workers,
            waiting: self.waiting_for_helper(),
            held_by: self.rates.held().map(|(limit, _)| limit.to_owned()),
            calls,
            errors: self.metrics.helper_errors.get(),
            mean_s,
            last_error: self.books.helper_trouble.as_ref().map(|trouble| HelperFailure {
                at_ms: calendar.at(trouble.at),
                node: trouble.node.clone(),
                error: trouble.error.clone(),
            }),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_nodes: self.settings.max_nodes,
            max_known: self.scheduler.limits().max_known,
            helper_rate: self.settings.helper_rate,
            ca_rate: self.settings.ca_rate,
            interval_s: seconds(self.settings.interval),
        }
    }

    /// What is known about a node, and what will happen to it next.
    pub fn explain(&self, name: &str, calendar: Calendar) -> Explained {
        let standing = self.scheduler.standing(name);
        let record = self.books.history.record(name);
        if standing.is_none() && record.is_none() {
            return Explained::Unknown(self.books.history.names().map(Arc::clone).collect());
        }
        let node = self.by_identity.get(name).and_then(|flow| self.nodes.get(flow));
        let failures = self.scheduler.failures(name);
        let mut told = Explanation { identity: name.to_owned(), failures, ..Explanation::default() };
        if let Some((record, _)) = record {
            self.tell_record(&mut told, record, calendar);
        }
        if let Some(node) = node {
            let took = node.attempt.age(calendar.mono);
            let attempt = self.attempt(&node.attempt, took, calendar);
            told.attempts.push(attempt);
        }
        (told.state, told.next) = match standing {
            Some(standing) => self.next(standing, node, failures, calendar),
            None => nothing_next(&told, record.is_some_and(|(_, is_node)| is_node)),
        };
        Explained::Known(Box::new(told))
    }

    fn tell_record(&self, told: &mut Explanation, record: &Record, calendar: Calendar) {
        let at = |stamp: Stamp| calendar.at(self.books.began + Duration::from_millis(stamp));
        told.seen = ["event", "discovery", "registration"]
            .into_iter()
            .zip(&record.sights)
            .filter(|(_, sight)| sight.count > 0)
            .map(|(by, sight)| Seen {
                by: by.to_owned(),
                count: sight.count,
                first_ms: at(sight.first),
                last_ms: at(sight.last),
            })
            .collect();
        told.attempts_total = record.attempts_total;
        told.attempts = record
            .attempts
            .iter()
            .map(|attempt| self.attempt(attempt, Duration::from_millis(attempt.took.into()), calendar))
            .collect();
        told.refusals_total = record.refusals_total;
        let refusal = |refused: &super::history::Refused| Refusal {
            at_ms: at(refused.at),
            reason: refused.reason.to_owned(),
            detail: refused.detail.to_string(),
            count: refused.count,
        };
        told.refusals = record.refusals.iter().map(refusal).collect();
        told.notes = record.notes.iter().map(|(stamp, what)| Note { at_ms: at(*stamp), text: words(*what) }).collect();
    }

    fn attempt(&self, attempt: &super::history::Attempt, took: Duration, calendar: Calendar) -> Attempt {
        let step = |step: &super::history::Step| Step {
            what: step.what.label().to_owned(),
            attempt: step.attempt.into(),
            after_s: f64::from(step.after) / 1000.0,
            took_s: step.took.map(|took| f64::from(took) / 1000.0),
            fault: step.fault.as_ref().map(ToString::to_string),
        };
        Attempt {
            number: attempt.number,
            started_ms: calendar.at(self.books.began + Duration::from_millis(attempt.began)),
            took_s: seconds(took),
            outcome: attempt.end.as_ref().map(|(end, _)| end.word().to_owned()),
            detail: attempt.end.as_ref().map(|(_, detail)| detail.to_string()).filter(|detail| !detail.is_empty()),
            steps: attempt.steps.iter().map(step).collect(),
        }
    }

    fn next(&self, standing: Standing, node: Option<&Node>, failures: u32, calendar: Calendar) -> (String, Next) {
        let left = |until: Instant| span(until.saturating_duration_since(calendar.mono));
        let timed = |text: String, until: Instant| Next { text, at_ms: Some(calendar.at(until)), ..Next::default() };
        let again = "its startup event, a discovery or registration data";
        let (state, next) = match standing {
            Standing::Queued { place, leaves } => ("queued", self.next_of_queued(place, leaves, calendar)),
            Standing::Probing | Standing::Silent | Standing::Engaged => {
                let state = match standing {
                    Standing::Probing => "probing",
                    Standing::Silent => "silent",
                    _ => "engaged",
                };
                (state, node.map(|node| self.next_of_flow(node, calendar)).unwrap_or_default())
            }
            Standing::Resting { until } => {
                let text = format!("rests for {} more after {}, then starts by itself", left(until), times(failures));
                ("resting", timed(text, until))
            }
            Standing::WaitingToBeSeen { until } if until > calendar.mono => {
                let text = format!(
                    "starts when it is seen again ({again}), but not within the next {} after {}",
                    left(until),
                    times(failures)
                );
                ("waiting_to_be_seen", timed(text, until))
            }
            Standing::WaitingToBeSeen { .. } => {
                let text = format!("starts as soon as it is seen again ({again})");
                ("waiting_to_be_seen", Next { text, ..Next::default() })
            }
            Standing::Settling { until } => {
                let text = format!("was provisioned and restarts; left alone for {} more", left(until));
                ("settling", timed(text, until))
            }
        };
        (state.to_owned(), next)
    }

    fn next_of_queued(&self, place: usize, leaves: Option<Instant>, calendar: Calendar) -> Next {
        let of = self.scheduler.queued();
        let mut text = format!("waits for its turn at place {place} of {of}");
        match self.held_by() {
            Some("paused") => text.push_str("; provisioning is paused, `choria provisioner resume` lets it go on"),
            Some("connection") => text.push_str("; there is no connection to the broker"),
            Some("draining") => text.push_str("; the provisioner is stopping, the next one finds it by discovery"),
            Some("helper") => text.push_str("; the helper is busy and many wait for it"),
            Some("max_nodes") => {
                let most = self.settings.max_nodes;
                text.push_str(&format!("; {most} nodes are in flight, as many as max_nodes allows"));
            }
            Some(limit) => text.push_str(&format!("; the helper is held back by {limit}")),
            None => {}
        }
        if let Some(until) = leaves {
            let left = span(until.saturating_duration_since(calendar.mono));
            text.push_str(&format!("; its connection ended, so it leaves the queue in {left} unless it is seen again"));
        }
        Next { text, at_ms: leaves.map(|at| calendar.at(at)), place: Some(place), of: Some(of) }
    }

    fn next_of_flow(&self, node: &Node, calendar: Calendar) -> Next {
        let timed = |text: String, until: Instant| Next { text, at_ms: Some(calendar.at(until)), ..Next::default() };
        let ago = |since: Instant| span(calendar.mono.saturating_duration_since(since));
        let left = |until: Instant| span(until.saturating_duration_since(calendar.mono));
        match node.flow.view() {
            View::Starting => Next { text: "is about to be asked".to_owned(), ..Next::default() },
            View::Calling { action, attempt, since, until } => {
                let (what, tries) = (action.label(), action.tries());
                let text = format!(
                    "was asked {what} {} ago (try {attempt} of {tries}); its answer is waited for {} more",
                    ago(since),
                    left(until)
                );
                timed(text, until)
            }
            View::Pausing { action, attempt, until } => {
                let (what, tries) = (action.label(), action.tries());
                timed(format!("will be asked {what} in {} (try {attempt} of {tries})", left(until)), until)
            }
            View::Helper { since } if node.waits_for_helper() => self.next_at_helper(node, since, calendar),
            View::Helper { since } => Next { text: format!("the helper has it for {}", ago(since)), ..Next::default() },
            View::Over => Next::default(),
        }
    }

    fn next_at_helper(&self, node: &Node, since: Instant, calendar: Calendar) -> Next {
        let waiting = self.helper_queue.iter().filter_map(|flow| self.nodes.get(flow)).filter(|n| n.waits_for_helper());
        let place = 1 + waiting.take_while(|other| !std::ptr::eq(*other, node)).count();
        let of = self.waiting_for_helper();
        let (what, until) = match self.rates.held() {
            Some((limit, at)) => (limit, Some(at)),
            None => ("a free helper", None),
        };
        let waited = span(calendar.mono.saturating_duration_since(since));
        let text = format!("waits for {what} for {waited}, at place {place} of {of}");
        let at_ms = until.filter(|_| place == 1).map(|at| calendar.at(at));
        Next { text, at_ms, place: Some(place), of: Some(of) }
    }
}

/// For a name that the queue does not hold.
fn nothing_next(told: &Explanation, is_node: bool) -> (String, Next) {
    let text = |text: &str| Next { text: text.to_owned(), ..Next::default() };
    if !is_node {
        return ("refused".to_owned(), text("nothing: this name was only ever refused and is no node"));
    }
    let last = told.attempts.last().and_then(|attempt| attempt.outcome.as_deref());
    let next = match last {
        Some("provisioned" | "home") => {
            text("nothing: it was provisioned; it starts over when it is back in provisioning")
        }
        Some("shut_down") => text("nothing: the helper had it shut down; it starts over when it is seen again"),
        _ => text("nothing before it is seen again (its startup event, a discovery or registration data)"),
    };
    ("not_waiting".to_owned(), next)
}

fn words(what: Happening) -> String {
    match what {
        Happening::ShutDown => "said that it shuts down".to_owned(),
        Happening::Disconnected => "its connection to the broker ended".to_owned(),
        Happening::CameHome(Some(ms)) => {
            format!("became a fleet member {} after its restart was ordered", span(Duration::from_millis(ms.into())))
        }
        Happening::CameHome(None) => "was seen to start as a fleet member".to_owned(),
        Happening::NotHome(s) => {
            format!("was not seen as a fleet member within {s}s after its restart was ordered (verify_timeout)")
        }
        Happening::Returned => {
            "was back in provisioning right after it was provisioned: its configuration does not work there".to_owned()
        }
        Happening::Stale => "was dropped from the queue because nothing had seen it for too long".to_owned(),
        Happening::WhilePaused => "was seen while paused or stopping, and not queued".to_owned(),
        Happening::QueueFull => "was seen and not queued, too many nodes were known".to_owned(),
    }
}

fn times(failures: u32) -> String {
    match failures {
        0 => "it was put off".to_owned(),
        1 => "a failure".to_owned(),
        many => format!("{many} failures in a row"),
    }
}

/// A span for people: `350ms`, `4.2s`, `3m20s`, `2h5m`.
fn span(time: Duration) -> String {
    let (millis, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Seconds to the millisecond, as they are shown.
fn seconds(time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a process's life")]
    let millis = time.as_millis() as f64;
    millis / 1000.0
}
