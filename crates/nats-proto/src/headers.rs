//! The `NATS/1.0` header block (spec 07 §5).

/// First line of every block.
pub const VERSION: &str = "NATS/1.0";

/// Headers of one message. Names keep their case and are compared with it; a name may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMap {
    status: Option<u16>,
    description: String,
    entries: Vec<(String, String)>,
}

/// Why a block is not a header block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first line is not `NATS/1.0`.
    #[error("header block does not start with NATS/1.0")]
    Version,
    /// The status is not three digits.
    #[error("header status is not a number of three digits")]
    Status,
    /// A line without colon, or with an empty name.
    #[error("header line {line} has no name")]
    Line {
        /// Line number, the version line is 1.
        line: usize,
    },
    /// The block does not end with an empty line.
    #[error("header block does not end with an empty line")]
    End,
    /// Not UTF-8.
    #[error("header block is not utf-8")]
    Encoding,
    /// A name or value that would break the block: a line end, a colon or blank in the name.
    #[error("header {name:?} has a name or value that cannot be written")]
    Unwritable {
        /// The name.
        name: String,
    },
}

impl HeaderMap {
    /// No headers, no status.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is neither header nor status.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.status.is_none()
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Status of a message that the broker made itself, such as 503.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Text behind the status.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Adds a header.
    ///
    /// # Errors
    /// A line end in name or value, a colon, a blank or nothing as name.
    pub fn append(&mut self, name: impl Into<String>, value: impl Into<String>) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        let bad_name = name.is_empty() || name.bytes().any(|byte| byte <= b' ' || byte == b':' || byte == 0x7f);
        if bad_name || value.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
            return Err(HeaderError::Unwritable { name });
        }
        self.entries.push((name, value));
        Ok(())
    }

    /// Reads a whole block including the empty line at its end.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(block: &[u8]) -> Result<Self, HeaderError> {
        let text = std::str::from_utf8(block).map_err(|_| HeaderError::Encoding)?;
        let text = text.strip_suffix("\r\n").ok_or(HeaderError::End)?;
        let mut lines = text.split("\r\n");
        let mut headers = Self::default();
        headers.parse_first_line(lines.next().ok_or(HeaderError::Version)?)?;
        let mut at_end = false;
        for (index, line) in lines.enumerate() {
            if at_end {
                return Err(HeaderError::Line { line: index + 1 });
            }
            if line.is_empty() {
                at_end = true;
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(HeaderError::Line { line: index + 2 })?;
            if name.trim().is_empty() {
                return Err(HeaderError::Line { line: index + 2 });
            }
            headers.entries.push((name.to_owned(), value.trim_start_matches([' ', '\t']).to_owned()));
        }
        if at_end { Ok(headers) } else { Err(HeaderError::End) }
    }

    fn parse_first_line(&mut self, line: &str) -> Result<(), HeaderError> {
        let rest = line.strip_prefix(VERSION).ok_or(HeaderError::Version)?;
        let rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return Ok(());
        }
        let code = rest.get(..3).ok_or(HeaderError::Status)?;
        if !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeaderError::Status);
        }
        self.status = code.parse().ok();
        self.description = rest[3..].trim().to_owned();
        Ok(())
    }

    /// Appends the block to a buffer.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(VERSION.as_bytes());
        if let Some(status) = self.status {
            out.extend_from_slice(format!(" {status:03}").as_bytes());
            if !self.description.is_empty() {
                out.push(b' ');
                out.extend_from_slice(self.description.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.entries {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The block as bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write_to(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_headers() {
        let block = b"NATS/1.0\r\nX-Test: 1\r\nx-test:2\r\n\r\n";
        let headers = HeaderMap::parse(block).unwrap();
        assert_eq!(headers.get("X-Test"), Some("1"));
        assert_eq!(headers.get("x-test"), Some("2"));
        assert_eq!(HeaderMap::parse(&headers.to_vec()).unwrap(), headers);
    }

    #[test]
    fn reads_a_status() {
        let headers = HeaderMap::parse(b"NATS/1.0 503\r\nNats-Subject: a\r\n\r\n").unwrap();
        assert_eq!(headers.status(), Some(503));
        let headers = HeaderMap::parse(b"NATS/1.0 404 No Messages\r\n\r\n").unwrap();
        assert_eq!((headers.status(), headers.description()), (Some(404), "No Messages"));
    }

    #[test]
    fn refuses_what_is_no_block() {
        for block in [
            &b""[..],
            b"NATS/1.0",
            b"NATS/1.0\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"NATS/1.0\r\nnocolon\r\n\r\n",
            b"NATS/1.0 5x3\r\n\r\n",
            b"NATS/1.0 \xc3\xa9\xc3\xa9\r\n\r\n",
            b"NATS/1.0\r\n: v\r\n\r\n",
            b"NATS/1.0\r\n\r\nA: b\r\n",
            b"\xff\r\n\r\n",
        ] {
            assert!(HeaderMap::parse(block).is_err(), "{block:?}");
        }
        let mut headers = HeaderMap::new();
        assert!(headers.append("a", "b\r\nc: d").is_err());
        assert!(headers.append("a b", "c").is_err());
        assert!(headers.is_empty());
    }
}
