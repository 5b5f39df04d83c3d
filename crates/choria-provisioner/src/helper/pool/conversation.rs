//! What is under way in one process, and which answer belongs to which request. No I/O.
//!
//! The rule: an answer that names its node (`identity`) is for the request about that node, wherever it stands; one that
//! does not is for the oldest request. An answer that fits no request ends the process, because an answer must never reach
//! the wrong node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::helper::{HelperAnswer, HelperError, RunNotes};

/// How one request ended.
pub(super) type Outcome = Result<(HelperAnswer, RunNotes), (HelperError, RunNotes)>;

/// One request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) identity: Arc<str>,
    /// The document, without a newline.
    pub(super) request: String,
    /// A process ended while it had this request and others. So it is asked alone from now on, and another end is its own.
    pub(super) suspect: bool,
    /// When it was handed to the pool.
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
struct Asked {
    job: Job,
    /// Bytes that must have been written before an answer can be honest.
    end: u64,
    handed_over: Instant,
}

/// An answer and the request it is for.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) job: Job,
    pub(super) answer: HelperAnswer,
    /// How long the request had waited for a place in a process.
    pub(super) waited: Duration,
}

/// Why a process is given up.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// The oldest request failed for good; the others are not to blame.
    Oldest(HelperError),
    /// It ended or broke the rules, nobody knows over which request.
    Process(String),
}

/// What becomes of the requests of a process that was given up.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// These failed.
    pub(super) failed: Vec<(Job, HelperError)>,
    /// These are asked again, in this order.
    pub(super) again: Vec<Job>,
}

/// The requests of one process, oldest first.
#[derive(Debug)]
pub(super) struct Conversation {
    command: String,
    timeout: Duration,
    under_way: VecDeque<Asked>,
    /// Bytes of requests so far, and how many of them were written.
    queued: u64,
    written: u64,
    /// Since when the oldest request is the oldest.
    oldest_since: Instant,
    /// Every answer so far was for the oldest request.
    in_order: bool,
}

impl Conversation {
    pub(super) fn new(command: String, timeout: Duration, now: Instant) -> Self {
        Self { command, timeout, under_way: VecDeque::new(), queued: 0, written: 0, oldest_since: now, in_order: true }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Takes a request on and appends its line to what is to be written.
    pub(super) fn ask(&mut self, job: Job, out: &mut Vec<u8>, now: Instant) {
        if self.under_way.is_empty() {
            self.oldest_since = now;
        }
        out.extend_from_slice(job.request.as_bytes());
        out.push(b'\n');
        self.queued += job.request.len() as u64 + 1;
        self.under_way.push_back(Asked { job, end: self.queued, handed_over: now });
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// When the oldest request has taken too long. Requests behind it wait for their own turn: the time of each begins
    /// when it is the oldest, so none waits longer than its place in the row times the time-out.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.under_way.is_empty()).then(|| self.oldest_since + self.timeout)
    }

    /// The deadline passed; `received` bytes of an answer had come.
    pub(super) fn overdue(&self, received: usize) -> Fault {
        Fault::Oldest(HelperError::TimedOut { command: self.command.clone(), timeout: self.timeout, received })
    }

    /// Takes one line.
    ///
    /// # Errors
    /// Why the process is to be given up.
    pub(super) fn line(&mut self, line: &[u8], now: Instant) -> Result<Answered, Fault> {
        if self.under_way.is_empty() {
            return Err(Fault::Process(super::worker::UNASKED.to_owned()));
        }
        if line.is_empty() {
            return Err(self.spoilt(HelperError::NoOutput { command: self.command.clone(), status: None }));
        }
        let answer = HelperAnswer::parse(line)
            .map_err(|reason| self.spoilt(HelperError::Decode { command: self.command.clone(), reason }))?;
        let place = if answer.identity.is_empty() {
            if !self.in_order && self.under_way.len() > 1 {
                let reason = "answered in another order than it was asked, and then without identity";
                return Err(Fault::Process(reason.to_owned()));
            }
            0
        } else {
            let named = self.under_way.iter().position(|asked| *asked.job.identity == *answer.identity);
            named.ok_or_else(|| Fault::Process(self.misdirected(&answer.identity)))?
        };
        if self.under_way[place].end > self.written {
            return Err(Fault::Process("answered before it had read the request".to_owned()));
        }
        let asked = self.under_way.remove(place).expect("the place was looked up above");
        if place == 0 {
            self.oldest_since = now;
        } else {
            self.in_order = false;
        }
        let waited = asked.handed_over.saturating_duration_since(asked.job.since);
        Ok(Answered { job: asked.job, answer, waited })
    }

    /// The output cannot be used. It was about the oldest request as far as the process keeps to the order.
    pub(super) fn spoilt(&self, error: HelperError) -> Fault {
        if self.in_order || self.under_way.len() == 1 {
            Fault::Oldest(error)
        } else {
            Fault::Process(format!("spoilt its output: {error}"))
        }
    }

    fn misdirected(&self, identity: &str) -> String {
        let names: Vec<&str> = self.under_way.iter().take(3).map(|asked| &*asked.job.identity).collect();
        let more = self.under_way.len().saturating_sub(names.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} others") };
        let shown: String = identity.chars().take(100).collect();
        format!("answered for {shown:?} when it was asked about {:?}{more}", names.join(", "))
    }

    /// The process is given up.
    pub(super) fn end(self, fault: Fault) -> Remains {
        let mut remains = Remains::default();
        let mut under_way = self.under_way.into_iter();
        let reason = match fault {
            Fault::Oldest(error) => {
                remains.failed.extend(under_way.next().map(|asked| (asked.job, error)));
                remains.again.extend(under_way.map(|asked| asked.job));
                return remains;
            }
            Fault::Process(reason) => reason,
        };
        for (place, Asked { mut job, end, .. }) in under_way.enumerate() {
            // A process cannot have ended over what it never got.
            if place > 0 && end > self.written {
                remains.again.push(job);
            } else if job.suspect {
                remains.failed.push((job, HelperError::Pool { command: self.command.clone(), reason: reason.clone() }));
            } else {
                job.suspect = true;
                remains.again.push(job);
            }
        }
        remains
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        Conversation::new("H".to_owned(), Duration::from_secs(10), Instant::now())
    }

    fn job(identity: &str) -> Job {
        let (reply, _) = oneshot::channel();
        Job {
            identity: identity.into(),
            request: format!("{{\"identity\":\"{identity}\"}}"),
            suspect: false,
            since: Instant::now(),
            reply,
        }
    }

    /// A conversation in which these were asked and written.
    fn asked(names: &[&str]) -> Conversation {
        let mut conversation = conversation();
        let mut out = Vec::new();
        for name in names {
            conversation.ask(job(name), &mut out, Instant::now());
        }
        conversation.wrote(out.len());
        conversation
    }

    fn answer(conversation: &mut Conversation, line: &str) -> Result<String, Fault> {
        conversation.line(line.as_bytes(), Instant::now()).map(|answered| answered.job.identity.to_string())
    }

    fn named(name: &str) -> String {
        format!("{{\"identity\":\"{name}\"}}")
    }

    fn process_fault(result: Result<String, Fault>) -> String {
        match result {
            Err(Fault::Process(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_match_by_name_else_by_order() {
        let mut talk = asked(&["a", "b", "c", "d"]);
        assert_eq!(answer(&mut talk, "{}").unwrap(), "a");
        assert_eq!(answer(&mut talk, &named("b")).unwrap(), "b");
        assert_eq!(answer(&mut talk, "{}").unwrap(), "c");
        assert_eq!(answer(&mut talk, &named("d")).unwrap(), "d");
        assert!(talk.is_empty());

        let mut talk = asked(&["a", "b", "c"]);
        assert_eq!(answer(&mut talk, &named("c")).unwrap(), "c");
        assert!(process_fault(answer(&mut talk, "{}")).contains("another order"));
        assert_eq!(answer(&mut talk, &named("b")).unwrap(), "b");
        assert_eq!(answer(&mut talk, "{}").unwrap(), "a", "only one is left");
    }

    #[test]
    fn an_answer_that_fits_nobody_ends_the_process() {
        assert!(process_fault(answer(&mut asked(&[]), "{}")).contains("without being asked"));
        let reason = process_fault(answer(&mut asked(&["a", "b", "c", "d", "e"]), &named("z")));
        assert_eq!(reason, "answered for \"z\" when it was asked about \"a, b, c\" and 2 others");
        let mut twice = asked(&["a", "b"]);
        answer(&mut twice, &named("a")).unwrap();
        assert!(process_fault(answer(&mut twice, &named("a"))).contains("answered for \"a\""));
        let mut early = conversation();
        early.ask(job("a"), &mut Vec::new(), Instant::now());
        early.wrote(3);
        assert!(process_fault(answer(&mut early, &named("a"))).contains("before it had read"));
    }

    #[test]
    fn two_requests_about_one_node_are_answered_in_order() {
        let mut talk = asked(&["a", "b", "a"]);
        answer(&mut talk, &named("a")).unwrap();
        assert_eq!(answer(&mut talk, &named("a")).unwrap(), "a");
        assert_eq!(answer(&mut talk, "{}").unwrap_or_default(), "b");
    }

    #[test]
    fn spoilt_output_is_the_oldest_requests_fault_unless_the_order_is_free() {
        for line in ["{", ""] {
            let talk = &mut asked(&["a", "b"]);
            let fault = talk.line(line.as_bytes(), Instant::now()).unwrap_err();
            assert!(matches!(fault, Fault::Oldest(_)), "{fault:?}");
        }
        let mut free = asked(&["a", "b", "c"]);
        answer(&mut free, &named("b")).unwrap();
        assert!(process_fault(answer(&mut free, "{")).contains("cannot decode output"));
    }

    #[test]
    fn the_time_of_a_request_begins_when_it_is_the_oldest() {
        let began = Instant::now();
        let mut talk = Conversation::new("H".to_owned(), Duration::from_secs(10), began);
        assert_eq!(talk.deadline(), None);
        let mut out = Vec::new();
        talk.ask(job("a"), &mut out, began);
        talk.ask(job("b"), &mut out, began + Duration::from_secs(1));
        talk.wrote(out.len());
        assert_eq!(talk.deadline(), Some(began + Duration::from_secs(10)));
        talk.line(b"{}", began + Duration::from_secs(9)).unwrap();
        assert_eq!(talk.deadline(), Some(began + Duration::from_secs(19)));
        let remains = talk.end(Fault::Oldest(HelperError::NotConfigured));
        assert_eq!((remains.failed.len(), remains.again.len()), (1, 0));
    }

    #[test]
    fn an_end_costs_each_of_its_requests_one_retry() {
        let mut talk = asked(&["a", "b"]);
        talk.ask(job("unwritten"), &mut Vec::new(), Instant::now());
        let first = talk.end(Fault::Process("ended".to_owned()));
        assert!(first.failed.is_empty());
        let suspects: Vec<(&str, bool)> = first.again.iter().map(|job| (&*job.identity, job.suspect)).collect();
        assert_eq!(suspects, [("a", true), ("b", true), ("unwritten", false)]);
        let mut again = conversation();
        let mut out = Vec::new();
        again.ask(first.again.into_iter().next().unwrap(), &mut out, Instant::now());
        again.wrote(out.len());
        let second = again.end(Fault::Process("ended".to_owned()));
        assert_eq!(second.failed[0].1.to_string(), "H ended");
        assert!(second.again.is_empty());
    }

    #[test]
    fn whoever_stands_behind_a_failed_request_is_not_to_blame() {
        let talk = asked(&["slow", "b", "c"]);
        let fault = talk.overdue(7);
        let remains = talk.end(fault);
        assert_eq!(&*remains.failed[0].0.identity, "slow");
        assert!(remains.again.iter().all(|job| !job.suspect) && remains.again.len() == 2);
    }
}
