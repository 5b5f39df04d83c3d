//! From the bytes of a message to a request that may be served (spec 03 §1.4). Sans-io.
//!
//! Nothing acts before every check has passed, among them the one for a usable reply subject: the original runs the
//! action first (spec 01 §4).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use choria_filter::MatchError;
use choria_protocol::filter::Filter;
use choria_protocol::subjects::Arrival;
use choria_protocol::v1::{self, DecodedRequest};
use choria_protocol::window::{SeenRequests, TtlCheck, WindowError};
use choria_security::verify::{RequestVerifier, VerifyError};

use crate::counters::Counters;

/// Requests that are remembered as served. An attacker with a good certificate cannot make a node remember more.
const REMEMBERED: usize = 8192;

/// Whose requests are served.
#[derive(Debug)]
pub enum Verification {
    /// Signed ones of allowed callers. Every fleet member has it, without a switch to turn it off.
    Signed(RequestVerifier),
    /// Anyone's, on the closed network of the provisioning account: the node has no trust material yet, the broker's
    /// account and the token guard it (spec 03 §6.4).
    Provisioning,
}

/// Why a message is not served. Nobody gets an answer; the log does.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// It is no request, or cannot be answered.
    #[error("not a request: {0}")]
    Undecodable(#[from] v1::Error),
    /// The signature or the caller is not acceptable.
    #[error("request {request_id} of {caller} is not verified: {reason}")]
    Unverified {
        /// Request id.
        request_id: String,
        /// Caller id it claims.
        caller: String,
        /// Why not.
        reason: VerifyError,
    },
    /// The filter cannot be evaluated here, so it does not match.
    #[error("request {request_id} has a filter that cannot be evaluated: {reason}")]
    Filter {
        /// Request id.
        request_id: String,
        /// Why.
        reason: MatchError,
    },
    /// The filter does not match this node.
    #[error("request {0} is for other nodes")]
    Filtered(String),
    /// It is for a collective that this node does not belong to.
    #[error("request {request_id} is for collective {collective:?}, which this node does not belong to")]
    Collective {
        /// Request id.
        request_id: String,
        /// The collective.
        collective: String,
    },
    /// It arrived on the subject of another collective or agent.
    #[error("request {request_id} for agent {agent:?} in collective {collective:?} arrived on another one's subject")]
    Subject {
        /// Request id.
        request_id: String,
        /// The agent it names.
        agent: String,
        /// The collective it names.
        collective: String,
    },
    /// Too old, from the future, or lives too long.
    #[error("request {request_id} of {sender}: {reason}")]
    Window {
        /// Request id.
        request_id: String,
        /// Sender.
        sender: String,
        /// Why.
        reason: WindowError,
    },
}

/// The checks of one server.
#[derive(Debug)]
pub struct Pipeline {
    verification: Verification,
    collectives: Vec<String>,
    ttl: TtlCheck,
    seen: SeenRequests,
    counters: Arc<Counters>,
}

impl Pipeline {
    /// The checks of a member of these collectives.
    pub fn new(verification: Verification, collectives: Vec<String>, counters: Arc<Counters>) -> Self {
        Self { verification, collectives, ttl: TtlCheck::default(), seen: SeenRequests::new(REMEMBERED), counters }
    }

    /// Checks one message that arrived on `subject` at `now` (Unix seconds). `matches` tells whether a filter matches
    /// this node; it is asked only for verified requests.
    ///
    /// # Errors
    /// Why it must not be served; already counted.
    pub fn accept(
        &mut self,
        subject: &str,
        wire: &[u8],
        now: i64,
        matches: impl FnOnce(&Filter) -> Result<bool, MatchError>,
    ) -> Result<DecodedRequest, Rejection> {
        let counters = Arc::clone(&self.counters);
        Counters::count(&counters.total);
        let decoded = self.verified(wire, now).inspect_err(|_| Counters::count(&counters.unvalidated))?;
        let envelope = &decoded.request.envelope;
        let request_id = || envelope.request_id.clone();

        match matches(&envelope.filter) {
            Ok(true) => Counters::count(&counters.passed),
            refused => {
                Counters::count(&counters.filtered);
                return Err(match refused {
                    Err(reason) => Rejection::Filter { request_id: request_id(), reason },
                    Ok(_) => Rejection::Filtered(request_id()),
                });
            }
        }
        if !self.collectives.contains(&envelope.collective) {
            Counters::count(&counters.unvalidated);
            return Err(Rejection::Collective { request_id: request_id(), collective: envelope.collective.clone() });
        }
        // Who may publish where is decided by subject, so what a request says of itself must be what let it through.
        let arrival = Arrival::parse(subject);
        if !arrival.is_some_and(|arrival| arrival.agrees_with(&envelope.collective, &envelope.agent)) {
            Counters::count(&counters.unvalidated);
            let (agent, collective) = (envelope.agent.clone(), envelope.collective.clone());
            return Err(Rejection::Subject { request_id: request_id(), agent, collective });
        }
        if let Err(reason) = self.in_time(&decoded, now) {
            let counter = match reason {
                WindowError::Replayed | WindowError::Full { .. } => &counters.unvalidated,
                _ => &counters.ttlexpired,
            };
            Counters::count(counter);
            let sender = envelope.sender_id.clone();
            return Err(Rejection::Window { request_id: request_id(), sender, reason });
        }
        Counters::count(&counters.validated);
        counters.last_message.store(now, Ordering::Relaxed);
        Ok(decoded)
    }

    fn verified(&self, wire: &[u8], now: i64) -> Result<DecodedRequest, Rejection> {
        let decoded = v1::decode_request(wire)?;
        // A request that cannot be answered is not acted upon.
        decoded.transport.headers.reply_subject()?;
        if let Verification::Signed(verifier) = &self.verification {
            if let Err(error) = verifier.refresh() {
                tracing::error!("the CA file changed and cannot be used, the last good one stays in force: {error}");
            }
            let caller = &decoded.request.envelope.caller_id;
            verifier.verify(&decoded.secure, caller, now).map_err(|reason| Rejection::Unverified {
                request_id: decoded.request.envelope.request_id.clone(),
                caller: caller.clone(),
                reason,
            })?;
        }
        Ok(decoded)
    }

    fn in_time(&mut self, decoded: &DecodedRequest, now: i64) -> Result<(), WindowError> {
        let envelope = &decoded.request.envelope;
        self.ttl.check(envelope.time, envelope.ttl, now)?;
        match self.verification {
            Verification::Signed(_) => self.seen.insert(&decoded.secure.message, envelope.time, envelope.ttl, now),
            // A provisioner may send one signed text to a node twice, each time with a reply subject of its own, when the
            // first answer got lost; and anyone could fill the memory with unsigned texts.
            Verification::Provisioning => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
