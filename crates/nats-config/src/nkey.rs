//! Public keys as the configuration names them: base32 of a kind, an Ed25519 key and a checksum.

/// Whose key it is; the value is the first byte (NATS ADR-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Owner {
    /// `A…`
    Account = 0,
    /// `O…`
    Operator = 14 << 3,
    /// `U…`
    User = 20 << 3,
}

/// Whether a text is a public key of such an owner, letter for letter.
pub(crate) fn is_public(owner: Owner, text: &str) -> bool {
    // 35 bytes in 56 letters, nothing left over.
    if text.len() != 56 {
        return false;
    }
    let (mut bytes, mut buffer, mut bits) = ([0u8; 35], 0u32, 0u32);
    let mut at = 0;
    for letter in text.bytes() {
        let five = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return false,
        };
        buffer = (buffer << 5 | u32::from(five)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes[at] = u8::try_from(buffer >> bits & 0xff).unwrap_or_default();
            at += 1;
        }
    }
    let sum = u16::from_le_bytes([bytes[33], bytes[34]]);
    bytes[0] == owner as u8 && checksum(&bytes[..33]) == sum
}

/// CRC-16/XMODEM.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_to_the_last_letter() {
        let key = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
        assert!(is_public(Owner::User, key));
        assert!(!is_public(Owner::Account, key));
        assert!(!is_public(Owner::User, &key.to_lowercase()));
        assert!(!is_public(Owner::User, &key.replace("UAB2", "UAB3")));
        assert!(!is_public(Owner::User, "UABC"));
    }
}
