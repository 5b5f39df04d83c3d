//! Fresh ids. They come from the operating system's random generator.

use uuid::Uuid;

/// A request id of protocol v1: a random UUID as 32 lower case hex digits (spec 01 §4).
pub fn request_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// An id for a lifecycle event: a random UUID with dashes (spec 01 §5.6).
pub fn event_id() -> String {
    Uuid::new_v4().hyphenated().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let id = request_id();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
        assert_eq!(event_id().len(), 36);
        assert_ne!(request_id(), request_id());
    }
}
