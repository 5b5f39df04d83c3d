//! Making signed requests: one signature per node where it must be, one for many nodes where it can be.
//!
//! `jwt`, `inventory`, `restart` and `shutdown` are the same text for every node, so they are signed once per
//! short window and only the unsigned transport header differs (DESIGN §6). A node refuses a request id that it
//! has seen, so second tries and second attempts get documents of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::filter::Filter;
use choria_protocol::rpc::{DISCOVERY_AGENT, PING_PAYLOAD};
use choria_protocol::v1::{Headers, PreparedTransport, Request, RequestEnvelope, SecureRequest};
use choria_protocol::{ids, subjects};
use choria_security::sign::RequestSigner;
use rustc_hash::FxHashMap;

use crate::flow::{Action, Call, Now};

/// How long a request lives, in seconds.
const TTL: i64 = 60;
/// How long one signed document is used. Far below the time that nodes accept a message.
const WINDOW: Duration = Duration::from_secs(5);

/// Who sends the requests.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Identity of this provisioner, `senderid` and `mc_sender`.
    pub identity: String,
    /// `callerid`, `choria=<certname>`.
    pub caller_id: String,
    /// Signs; absent with `choria_insecure`.
    pub signer: Option<Arc<RequestSigner>>,
}

/// A request without its transport header.
#[derive(Debug, Clone)]
pub enum Document {
    /// Signed and encoded.
    Ready(Arc<PreparedTransport>),
    /// To be signed, away from the main loop: a signature takes a quarter of a millisecond.
    Unsigned(Box<Request>),
}

impl Document {
    /// The message body for one node.
    ///
    /// # Errors
    /// When signing fails.
    pub fn encode(&self, caller: &Caller, reply_to: &str, server: &str) -> Result<Vec<u8>, String> {
        let mut headers = Headers {
            reply_to: Some(reply_to.to_owned()),
            mc_sender: Some(caller.identity.clone()),
            ..Headers::default()
        };
        headers.add_hop(server, &caller.identity);
        match self {
            Self::Ready(prepared) => Ok(prepared.to_vec(&headers)),
            Self::Unsigned(request) => Ok(seal(caller, request)?.to_vec(&headers)),
        }
    }
}

fn seal(caller: &Caller, request: &Request) -> Result<PreparedTransport, String> {
    let text = request.to_text();
    let secure = match &caller.signer {
        None => SecureRequest::unsigned(text),
        Some(signer) => {
            let signed = signer.sign(&text).map_err(|error| error.to_string())?;
            SecureRequest { message: text, signature: signed.signature, pubcert: String::from(&*signed.pubcert) }
        }
    };
    Ok(PreparedTransport::new(&secure.to_vec()))
}

struct Shared {
    body: String,
    request_id: Arc<str>,
    prepared: Arc<PreparedTransport>,
    until: Instant,
}

/// Makes requests and keeps the documents that many nodes share.
pub struct Requests {
    caller: Arc<Caller>,
    shared: FxHashMap<Action, Shared>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("caller", &self.caller.caller_id).finish_non_exhaustive()
    }
}

impl Requests {
    /// Requests of this caller.
    pub fn new(caller: Arc<Caller>) -> Self {
        Self { caller, shared: FxHashMap::default() }
    }

    /// The document for a call and its request id.
    ///
    /// # Errors
    /// When signing fails.
    pub fn make(&mut self, call: &Call, now: Now) -> Result<(Document, Arc<str>), String> {
        if !call.shared {
            let request = self.request(call.action.agent(), call.body.expose().to_owned(), call.action.agent(), now);
            let request_id = Arc::from(request.envelope.request_id.as_str());
            return Ok((Document::Unsigned(Box::new(request)), request_id));
        }
        if let Some(shared) = self.shared.get(&call.action)
            && shared.until > now.mono
            && shared.body == call.body.expose()
        {
            return Ok((Document::Ready(Arc::clone(&shared.prepared)), Arc::clone(&shared.request_id)));
        }
        let request = self.request(call.action.agent(), call.body.expose().to_owned(), call.action.agent(), now);
        let request_id: Arc<str> = Arc::from(request.envelope.request_id.as_str());
        let prepared = Arc::new(seal(&self.caller, &request)?);
        let shared = Shared {
            body: call.body.expose().to_owned(),
            request_id: Arc::clone(&request_id),
            prepared: Arc::clone(&prepared),
            until: now.mono + WINDOW,
        };
        self.shared.insert(call.action, shared);
        Ok((Document::Ready(prepared), request_id))
    }

    /// A discovery request to all waiting nodes, with its subject and request id.
    pub fn discovery(&self, now: Now) -> (Document, String, Arc<str>) {
        let request = self.request(DISCOVERY_AGENT, PING_PAYLOAD.to_owned(), "choria_provision", now);
        let request_id = Arc::from(request.envelope.request_id.as_str());
        let subject = subjects::broadcast_agent(subjects::PROVISIONING_COLLECTIVE, DISCOVERY_AGENT);
        (Document::Unsigned(Box::new(request)), subject, request_id)
    }

    fn request(&self, agent: &str, message: String, filter_agent: &str, now: Now) -> Request {
        let mut filter = Filter::default();
        filter.add_agent(filter_agent);
        Request {
            message,
            envelope: RequestEnvelope {
                request_id: ids::request_id(),
                sender_id: self.caller.identity.clone(),
                caller_id: self.caller.caller_id.clone(),
                collective: subjects::PROVISIONING_COLLECTIVE.to_owned(),
                agent: agent.to_owned(),
                ttl: TTL,
                time: now.unix,
                filter,
            },
        }
    }
}
