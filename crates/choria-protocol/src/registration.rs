//! Bodies of registration messages: what a node tells about itself without being asked (spec 01 §5.5, spec 03 §12).

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::base64_text;
use crate::json::{push_string, value_text};

/// Agent that registration messages are addressed to.
pub const AGENT: &str = "registration";

const FILE_CONTENT: &str = "choria:registration:filecontent:1";
const INVENTORY_CONTENT: &str = "choria:registration:inventorycontent:1";

/// Why a registration body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Not JSON.
    #[error("registration body is not JSON: {0}")]
    NotJson(String),
    /// A protocol id of something else.
    #[error("unknown registration protocol {0:?}")]
    Protocol(String),
    /// A field is missing or of another type.
    #[error("registration field {0} is missing or of the wrong type")]
    Field(&'static str),
    /// Content that is not base64, not gzip, or too large when unpacked.
    #[error("registration content cannot be unpacked: {0}")]
    Content(String),
}

/// Body of the `file_content` plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Unix seconds of the file's last change.
    pub mtime: i64,
    /// Path of the file on the node.
    pub file: String,
    /// Whether the file changed since this process published it last.
    pub updated: bool,
    /// The file's bytes.
    pub content: Vec<u8>,
}

impl FileContent {
    /// The body, with the content gzipped or not.
    pub fn to_text(&self, compress: bool) -> String {
        let mut out = format!("{{\"mtime\":{},\"file\":", self.mtime);
        push_string(&mut out, &self.file);
        let _ = write!(out, ",\"updated\":{},\"protocol\":\"{FILE_CONTENT}\",", self.updated);
        let (key, bytes) = if compress { ("zcontent", gzip(&self.content)) } else { ("content", self.content.clone()) };
        let _ = write!(out, "\"{key}\":\"{}\"}}", base64_text::encode(&bytes));
        out
    }

    /// Reads a body. At most `limit` bytes are unpacked.
    ///
    /// # Errors
    /// See [`RegistrationError`].
    pub fn parse(bytes: &[u8], limit: usize) -> Result<Self, RegistrationError> {
        let body = object(bytes, FILE_CONTENT)?;
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let content = match (text("zcontent"), text("content")) {
            (Some(packed), _) => gunzip(&std64(packed)?, limit)?,
            (None, Some(plain)) => std64(plain)?,
            (None, None) => return Err(RegistrationError::Field("zcontent")),
        };
        Ok(Self {
            mtime: body.get("mtime").and_then(Value::as_i64).ok_or(RegistrationError::Field("mtime"))?,
            file: text("file").ok_or(RegistrationError::Field("file"))?.to_owned(),
            updated: body.get("updated").and_then(Value::as_bool).unwrap_or(false),
            content,
        })
    }
}

/// Body of the `inventory_content` plugin: agents, classes, facts, status, collectives, build_info and machines.
#[derive(Debug, Clone, PartialEq)]
pub struct InventoryContent {
    /// The inventory as a JSON object.
    pub content: Value,
}

impl InventoryContent {
    /// The body, with the content gzipped or inline.
    pub fn to_text(&self, compress: bool) -> String {
        let content = value_text(&self.content);
        if compress {
            let packed = base64_text::encode(&gzip(content.as_bytes()));
            format!("{{\"protocol\":\"{INVENTORY_CONTENT}\",\"zcontent\":\"{packed}\"}}")
        } else {
            format!("{{\"protocol\":\"{INVENTORY_CONTENT}\",\"content\":{content}}}")
        }
    }

    /// Reads a body. At most `limit` bytes are unpacked.
    ///
    /// # Errors
    /// See [`RegistrationError`].
    pub fn parse(bytes: &[u8], limit: usize) -> Result<Self, RegistrationError> {
        let mut body = object(bytes, INVENTORY_CONTENT)?;
        if let Some(packed) = body.get("zcontent").and_then(Value::as_str) {
            let text = gunzip(&std64(packed)?, limit)?;
            let content =
                serde_json::from_slice(&text).map_err(|error| RegistrationError::Content(error.to_string()))?;
            return Ok(Self { content });
        }
        body.remove("content")
            .filter(Value::is_object)
            .map(|content| Self { content })
            .ok_or(RegistrationError::Field("zcontent"))
    }
}

fn object(bytes: &[u8], protocol: &str) -> Result<serde_json::Map<String, Value>, RegistrationError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| RegistrationError::NotJson(error.to_string()))?;
    let Value::Object(map) = value else { return Err(RegistrationError::Field("protocol")) };
    match map.get("protocol").and_then(Value::as_str) {
        Some(found) if found == protocol => Ok(map),
        Some(other) => Err(RegistrationError::Protocol(other.to_owned())),
        None => Err(RegistrationError::Field("protocol")),
    }
}

fn std64(text: &str) -> Result<Vec<u8>, RegistrationError> {
    base64_text::decode(text).ok_or_else(|| RegistrationError::Content("not valid base64".to_owned()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

fn gunzip(bytes: &[u8], limit: usize) -> Result<Vec<u8>, RegistrationError> {
    let mut out = Vec::new();
    let mut decoder = GzDecoder::new(bytes).take(limit as u64 + 1);
    decoder.read_to_end(&mut out).map_err(|error| RegistrationError::Content(error.to_string()))?;
    if out.len() > limit {
        return Err(RegistrationError::Content(format!("more than {limit} bytes when unpacked")));
    }
    Ok(out)
}
