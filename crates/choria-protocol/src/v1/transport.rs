//! The outermost layer: base64 data and unsigned routing headers.

use crate::base64_text;
use crate::json::{push_list, push_string};
use crate::subjects;
use crate::tree::{self, At};
use crate::v1::{Error, Layer, Problem};

const PROTOCOL: &str = "choria:transport:1";
const PROTOCOL_V2: &str = "io.choria.protocol.v2.transport";

/// Largest message body that is read, in bytes. Brokers take 1 MiB unless configured otherwise (spec 02), so this only
/// bounds what an unusual broker could deliver.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Hops and federation targets in one message, beyond which it is refused.
const MAX_LIST: usize = 10_000;

/// One hop of `seen-by`: where it came in, who handled it, where it went out.
pub type Hop = [String; 3];

/// Federation header (spec 01 §8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Federation {
    /// `req`: request id.
    pub request_id: Option<String>,
    /// `reply-to`: where the reply goes on the client's side.
    pub reply_to: Option<String>,
    /// `target`: subjects to publish to. The published schema calls it `targets`; both are read, `target` is written.
    pub targets: Vec<String>,
}

/// Routing headers. Anyone on the way can change them: nothing in here is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `reply-to`: subject for replies.
    pub reply_to: Option<String>,
    /// `mc_sender`: identity of the sender.
    pub mc_sender: Option<String>,
    /// `seen-by`: one entry per hop. Shorter entries are filled with empty text, longer ones cut.
    pub seen_by: Vec<Hop>,
    /// `federation`: set while the message passes a federation broker.
    pub federation: Option<Federation>,
}

impl Headers {
    /// The subject replies must go to, checked so that it can be published to.
    ///
    /// # Errors
    /// [`Error::NoReplyTo`], [`Error::InvalidReplyTo`]: refuse such a request before its action runs (spec 01
    /// sharp edge 32; the original acts first).
    pub fn reply_subject(&self) -> Result<&str, Error> {
        let subject = self.reply_to.as_deref().ok_or(Error::NoReplyTo)?;
        if subjects::is_publishable(subject) { Ok(subject) } else { Err(Error::InvalidReplyTo(subject.to_owned())) }
    }

    /// Adds the hop that publishing through one server makes: the server on both ends, the identity in between.
    pub fn add_hop(&mut self, server: &str, identity: &str) {
        self.seen_by.push([server.to_owned(), identity.to_owned(), server.to_owned()]);
    }

    /// Headers for a reply to a message with these headers: federation header and hops are copied only for federated
    /// messages (spec 01 §4). `identity` becomes `mc_sender`.
    pub fn for_reply(&self, identity: &str) -> Self {
        let seen_by = if self.federation.is_some() { self.seen_by.clone() } else { Vec::new() };
        Self { reply_to: None, mc_sender: Some(identity.to_owned()), seen_by, federation: self.federation.clone() }
    }

    fn push_json(&self, out: &mut String) {
        out.push('{');
        let mut separator = "";
        for (key, value) in [("reply-to", &self.reply_to), ("mc_sender", &self.mc_sender)] {
            if let Some(text) = value.as_deref().filter(|text| !text.is_empty()) {
                push_key(out, &mut separator, key);
                push_string(out, text);
            }
        }
        if !self.seen_by.is_empty() {
            push_key(out, &mut separator, "seen-by");
            for (index, hop) in self.seen_by.iter().enumerate() {
                out.push(if index == 0 { '[' } else { ',' });
                push_list(out, hop);
            }
            out.push(']');
        }
        if let Some(federation) = &self.federation {
            push_key(out, &mut separator, "federation");
            federation.push_json(out);
        }
        out.push('}');
    }

    fn read(at: &At<'_, '_>) -> Result<Self, Error> {
        let fields = at.object(&["reply-to", "mc_sender", "seen-by", "federation"])?;
        let text = |name| -> Result<Option<String>, Error> {
            let Some(at) = fields.present(name) else { return Ok(None) };
            Ok(Some(at.text()?.to_owned()).filter(|text| !text.is_empty()))
        };
        let mut seen_by = Vec::new();
        if let Some(hops) = fields.present("seen-by") {
            for hop in hops.array()? {
                if seen_by.len() == MAX_LIST {
                    return Err(hops.error(Problem::TooLong { limit: MAX_LIST, found: MAX_LIST + 1 }));
                }
                let mut parts = hop.texts()?.into_iter();
                seen_by.push(std::array::from_fn(|_| parts.next().unwrap_or_default()));
            }
        }
        let federation = fields.present("federation").map(|at| Federation::read(&at)).transpose()?;
        Ok(Self { reply_to: text("reply-to")?, mc_sender: text("mc_sender")?, seen_by, federation })
    }
}

impl Federation {
    fn push_json(&self, out: &mut String) {
        out.push('{');
        let mut separator = "";
        for (key, value) in [("req", &self.request_id), ("reply-to", &self.reply_to)] {
            if let Some(text) = value.as_deref().filter(|text| !text.is_empty()) {
                push_key(out, &mut separator, key);
                push_string(out, text);
            }
        }
        if !self.targets.is_empty() {
            push_key(out, &mut separator, "target");
            push_list(out, &self.targets);
        }
        out.push('}');
    }

    fn read(at: &At<'_, '_>) -> Result<Self, Error> {
        let fields = at.object(&["req", "reply-to", "target", "targets"])?;
        let text = |name| -> Result<Option<String>, Error> {
            let Some(at) = fields.present(name) else { return Ok(None) };
            Ok(Some(at.text()?.to_owned()).filter(|text| !text.is_empty()))
        };
        let targets = match fields.present("target").or_else(|| fields.present("targets")) {
            Some(list) => list.texts()?,
            None => Vec::new(),
        };
        if targets.len() > MAX_LIST {
            return Err(at.error(Problem::TooLong { limit: MAX_LIST, found: targets.len() }));
        }
        Ok(Self { request_id: text("req")?, reply_to: text("reply-to")?, targets })
    }
}

fn push_key(out: &mut String, separator: &mut &'static str, key: &str) {
    out.push_str(separator);
    *separator = ",";
    out.push('"');
    out.push_str(key);
    out.push_str("\":");
}

/// The outermost layer of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Bytes of the secure layer.
    pub data: Vec<u8>,
    /// Routing headers.
    pub headers: Headers,
}

impl Transport {
    /// Reads a message body. Missing `headers` are empty; `null` or any other type is refused (the original crashes,
    /// spec 01 sharp edge 31).
    ///
    /// # Errors
    /// See [`Error`]; at most [`MAX_MESSAGE_BYTES`] are read.
    pub fn parse(wire: &[u8]) -> Result<Self, Error> {
        if wire.len() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge { size: wire.len(), limit: MAX_MESSAGE_BYTES });
        }
        let document = tree::parse(Layer::Transport, wire)?;
        let root = At::root(Layer::Transport, &document);
        let fields = root.object(&["protocol", "data", "headers"])?;
        let protocol = fields.required("protocol")?;
        match protocol.text()? {
            PROTOCOL => {}
            PROTOCOL_V2 => return Err(Error::OtherVersion),
            _ => return Err(protocol.error(Problem::NotAllowed(PROTOCOL))),
        }
        let data = base64_text::decode(fields.required("data")?.text()?).ok_or(Error::NotBase64("transport data"))?;
        let headers = fields.optional("headers").map(|at| Headers::read(&at)).transpose()?.unwrap_or_default();
        Ok(Self { data, headers })
    }

    /// The message body.
    pub fn to_vec(&self) -> Vec<u8> {
        PreparedTransport::new(&self.data).to_vec(&self.headers)
    }
}

/// A transport whose data is encoded once for many sets of headers: a directed request is one signed document for all
/// its nodes, and only the unsigned headers differ (DESIGN §6 "One signature for many nodes").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedTransport {
    /// Text up to where the headers begin.
    head: String,
}

impl PreparedTransport {
    /// Prepares the bytes of a secure layer.
    pub fn new(secure: &[u8]) -> Self {
        let mut head = String::with_capacity(64 + secure.len().div_ceil(3) * 4);
        head.push_str("{\"protocol\":\"");
        head.push_str(PROTOCOL);
        head.push_str("\",\"data\":\"");
        head.push_str(&base64_text::encode(secure));
        head.push_str("\",\"headers\":");
        Self { head }
    }

    /// The message body with these headers.
    pub fn to_vec(&self, headers: &Headers) -> Vec<u8> {
        let mut out = String::with_capacity(self.head.len() + 256);
        out.push_str(&self.head);
        headers.push_json(&mut out);
        out.push('}');
        out.into_bytes()
    }
}
