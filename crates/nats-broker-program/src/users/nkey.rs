//! Signatures of the nonce by a key that the configuration names (spec 07 §2, §7).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType};

/// Whether `text` is the public key of a user: `U` and 55 more characters with the right checksum.
pub(crate) fn is_user_key(text: &str) -> bool {
    is_key(text, 'U', &KeyPairType::User)
}

/// Whether `text` is the public key of an account.
pub(crate) fn is_account_key(text: &str) -> bool {
    is_key(text, 'A', &KeyPairType::Account)
}

/// Whether `text` is the public key of an operator.
pub(crate) fn is_operator_key(text: &str) -> bool {
    is_key(text, 'O', &KeyPairType::Operator)
}

fn is_key(text: &str, letter: char, kind: &KeyPairType) -> bool {
    text.starts_with(letter) && KeyPair::from_public_key(text).is_ok_and(|pair| pair.key_pair_type() == *kind)
}

/// Whether `signature` is one of `text` by the key. Signatures come in base64url without padding or in standard base64
/// with it; other spellings are refused.
pub(crate) fn is_signed(key: &str, text: &[u8], signature: &str) -> bool {
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature).or_else(|_| STANDARD.decode(signature)) else {
        return false;
    };
    is_signed_raw(key, text, &signature)
}

/// As [`is_signed`] with the signature's 64 bytes.
pub(crate) fn is_signed_raw(key: &str, text: &[u8], signature: &[u8]) -> bool {
    // The length is checked here so that the verifier never sees another one.
    signature.len() == 64 && KeyPair::from_public_key(key).is_ok_and(|pair| pair.verify(text, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
    const PUBLIC: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";

    #[test]
    fn only_public_keys_of_the_right_kind_are_keys() {
        assert!(is_user_key(PUBLIC));
        for wrong in ["", "U", "UABC", SEED, &PUBLIC.to_lowercase(), &PUBLIC.replace("UAB2", "UAB3")] {
            assert!(!is_user_key(wrong), "{wrong}");
        }
    }

    #[test]
    fn two_spellings_of_a_signature_are_taken() {
        let raw = KeyPair::from_seed(SEED).unwrap().sign(b"nonce").unwrap();
        assert!(is_signed(PUBLIC, b"nonce", &URL_SAFE_NO_PAD.encode(&raw)));
        assert!(is_signed(PUBLIC, b"nonce", &STANDARD.encode(&raw)));
        let padded_url = base64::engine::general_purpose::URL_SAFE.encode(&raw);
        for wrong in [&padded_url, "", "AAAA", "%%%", &URL_SAFE_NO_PAD.encode(&raw[1..])] {
            assert!(!is_signed(PUBLIC, b"nonce", wrong), "{wrong}");
        }
        assert!(!is_signed(PUBLIC, b"other", &STANDARD.encode(&raw)));
        assert!(!is_signed(
            "UB43KVROR7TFJ6KAPCYRF2FJROTZAH4FHLTJLPWX4DRZCC5NASLGJBFE",
            b"nonce",
            &STANDARD.encode(&raw)
        ));
    }
}
