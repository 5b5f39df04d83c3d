//! One connection made once, to find out what a broker lets us do: for diagnosis, not for work.
//!
//! Unlike [`NatsConnector`](crate::NatsConnector) it does not reconnect, and it asks one thing at a time, so that every
//! error of the broker belongs to the question before it.

use std::time::Duration;

use bytes::Bytes;
use nats_proto::encode;
use nats_proto::subject::{is_valid_filter, is_valid_publish};
use tokio::time::timeout;

use super::codec::Operation;
use super::session::Session;
use crate::failure::{ConnectFailure, Stage};
use crate::options::ConnectOptions;
use crate::target::Target;

/// How long the broker may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// A right that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// To subscribe to a subject.
    Subscribe(String),
    /// To publish to a subject. An empty message is really published: ask with a subject of the right form that nobody
    /// listens to.
    Publish(String),
}

/// A broker that accepted us, and who may be asked what else it accepts.
pub struct Probe {
    session: Session,
    target: Target,
    next_sid: u64,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Probe {
    /// Connects once.
    ///
    /// # Errors
    /// Why it failed; [`ConnectFailure::stage`] tells how far it came.
    pub async fn connect(target: &Target, options: &ConnectOptions) -> Result<Self, ConnectFailure> {
        let session = Session::open(target, options).await?;
        Ok(Self { session, target: target.clone(), next_sid: 1 })
    }

    /// The name that whoever listens there gives itself before anybody has to prove anything.
    ///
    /// # Errors
    /// When nobody listens, or somebody who is no broker.
    pub async fn greet(target: &Target, options: &ConnectOptions) -> Result<String, ConnectFailure> {
        Ok(Session::greet(target, options).await?.info().server_name.clone())
    }

    /// The name that the broker gives itself; for a Choria broker its identity.
    pub fn server_name(&self) -> &str {
        &self.session.info().server_name
    }

    /// The version that the broker gives itself.
    pub fn server_version(&self) -> &str {
        &self.session.info().version
    }

    /// Whether the broker grants a right; a refusal comes in its own words.
    ///
    /// # Errors
    /// When the connection ends or the broker does not answer.
    pub async fn ask(&mut self, right: &Right) -> Result<Option<String>, ConnectFailure> {
        let mut out = Vec::new();
        match right {
            Right::Subscribe(subject) | Right::Publish(subject) if !valid(right) => {
                return Ok(Some(format!("subject {subject:?} is not valid")));
            }
            Right::Subscribe(subject) => {
                encode::subscribe(&mut out, subject, None, self.next_sid);
                encode::unsubscribe(&mut out, self.next_sid, None);
                self.next_sid += 1;
            }
            Right::Publish(subject) => encode::publish(&mut out, subject, None, None, b""),
        }
        out.extend_from_slice(encode::PING);
        let asked = self.answered(&out);
        match timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ConnectFailure::Broken {
                target: self.target.clone(),
                stage: Stage::Connect,
                reason: format!("did not answer within {PATIENCE:?}"),
            }),
        }
    }

    /// Sends an empty request and returns the answer; none when nobody answers or the broker does not allow it.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn request(&mut self, subject: &str, inbox: &str) -> Result<Option<Bytes>, ConnectFailure> {
        let sid = self.next_sid;
        self.next_sid += 1;
        let mut out = Vec::new();
        encode::subscribe(&mut out, inbox, None, sid);
        encode::unsubscribe(&mut out, sid, Some(1));
        encode::publish(&mut out, subject, Some(inbox), None, b"");
        self.send(&out).await?;
        // The answer may come from another thread of the broker, so a PONG would not tell that there is none.
        timeout(PATIENCE, self.message(sid)).await.unwrap_or(Ok(None))
    }

    /// The message for one subscription; none when the broker answers with an error or that nobody listens.
    async fn message(&mut self, wanted: u64) -> Result<Option<Bytes>, ConnectFailure> {
        loop {
            match self.operation().await? {
                Operation::Message { sid, payload, .. } if sid == wanted => return Ok(Some(payload)),
                Operation::Error(_) | Operation::Status { .. } => return Ok(None),
                _ => {}
            }
        }
    }

    /// Sends bytes that end with a PING and reads up to its PONG. The answer is the broker's first complaint.
    async fn answered(&mut self, bytes: &[u8]) -> Result<Option<String>, ConnectFailure> {
        self.send(bytes).await?;
        let mut complaint = None;
        loop {
            match self.operation().await? {
                Operation::Pong => return Ok(complaint),
                Operation::Error(text) => {
                    complaint.get_or_insert(text);
                }
                _ => {}
            }
        }
    }

    /// The next operation of the broker that is not its own PING.
    async fn operation(&mut self) -> Result<Operation, ConnectFailure> {
        loop {
            match self.session.operation(&self.target, Stage::Connect).await? {
                Operation::Ping => self.send(encode::PONG).await?,
                other => return Ok(other),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectFailure> {
        self.session.send(bytes).await.map_err(|error| ConnectFailure::io(&self.target, Stage::Connect, &error))
    }
}

fn valid(right: &Right) -> bool {
    match right {
        Right::Subscribe(subject) => is_valid_filter(subject),
        Right::Publish(subject) => is_valid_publish(subject),
    }
}
