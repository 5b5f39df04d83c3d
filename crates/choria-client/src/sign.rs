//! How requests are sealed: signed, or left open where a test network asks for it.

use choria_protocol::v1::SecureRequest;
use choria_security::sign::RequestSigner;

/// A request that could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not sign the request: {0}")]
pub struct SignError(pub String);

/// Seals the text of a request.
pub trait SignRequest: Send + Sync + 'static {
    /// Wraps the exact text with its signature.
    fn seal(&self, request: String) -> Result<SecureRequest, SignError>;
}

impl SignRequest for RequestSigner {
    fn seal(&self, request: String) -> Result<SecureRequest, SignError> {
        let signature = self.sign(&request).map_err(|error| SignError(error.to_string()))?;
        Ok(SecureRequest {
            message: request,
            signature: signature.signature,
            pubcert: String::from(&*signature.pubcert),
        })
    }
}

/// No signature: networks without protocol security, such as tests and `choria_insecure` provisioning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsigned;

impl SignRequest for Unsigned {
    fn seal(&self, request: String) -> Result<SecureRequest, SignError> {
        Ok(SecureRequest::unsigned(request))
    }
}
