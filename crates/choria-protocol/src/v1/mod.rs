//! The layers of protocol v1 (spec 01 §1 and §2).
//!
//! ```text
//! Transport  {protocol, data: std64(secure JSON), headers}          unsigned, for routing
//!   SecureRequest {protocol, message: text, signature, pubcert}     signature over the bytes of `message`
//!     Request     {protocol, message: text, envelope}               who asks what of whom, when
//!   SecureReply   {protocol, message: text, hash}                   hash over the bytes of `message`
//!     Reply       {protocol, message: text, envelope}
//! ```
//!
//! [`decode_request`] and [`decode_reply`] take a message apart and check every schema; verifying the signature
//! ([`SecureRequest::message`], [`SecureRequest::signature_bytes`], [`SecureRequest::pubcert`]) is the job of
//! `choria-security`, age and replays of [`crate::window`].

mod error;
mod reply;
mod request;
mod secure;
mod transport;

pub use error::{Error, Layer, Problem};
pub use reply::{Reply, ReplyEnvelope};
pub use request::{MIN_TTL, Request, RequestEnvelope};
pub use secure::{INSECURE, INSECURE_REGISTRATION, SecureReply, SecureRequest, SignatureKind};
pub use transport::{Federation, Headers, Hop, MAX_MESSAGE_BYTES, PreparedTransport, Transport};

/// A request with all its layers. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedRequest {
    /// Routing headers and the bytes of the secure layer as received.
    pub transport: Transport,
    /// What the signature covers, and the signature.
    pub secure: SecureRequest,
    /// The request that [`SecureRequest::message`] holds.
    pub request: Request,
}

/// A reply with all its layers. The hash is checked; replies carry no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedReply {
    /// Routing headers and the bytes of the secure layer as received.
    pub transport: Transport,
    /// The hashed text.
    pub secure: SecureReply,
    /// The reply that [`SecureReply::message`] holds.
    pub reply: Reply,
}

/// Takes a request apart and checks the schema of each layer.
///
/// # Errors
/// The first layer that does not fit; see [`Error::reason`].
pub fn decode_request(wire: &[u8]) -> Result<DecodedRequest, Error> {
    let transport = Transport::parse(wire)?;
    let secure = SecureRequest::parse(&transport.data)?;
    let request = Request::parse(&secure.message)?;
    Ok(DecodedRequest { transport, secure, request })
}

/// Takes a reply apart, checks the schema of each layer and the hash.
///
/// # Errors
/// The first layer that does not fit; see [`Error::reason`].
pub fn decode_reply(wire: &[u8]) -> Result<DecodedReply, Error> {
    let transport = Transport::parse(wire)?;
    let secure = SecureReply::parse(&transport.data)?;
    let reply = Reply::parse(&secure.message)?;
    Ok(DecodedReply { transport, secure, reply })
}

/// A message body for a request whose secure layer is ready.
pub fn encode_request(secure: &SecureRequest, headers: &Headers) -> Vec<u8> {
    PreparedTransport::new(&secure.to_vec()).to_vec(headers)
}

/// A message body for a reply.
pub fn encode_reply(reply: &Reply, headers: &Headers) -> Vec<u8> {
    PreparedTransport::new(&SecureReply::seal(reply.to_text()).to_vec()).to_vec(headers)
}
