//! Tokens made to harm: every byte comes from outside (DESIGN section 6).
#![allow(clippy::unwrap_used, reason = "tests")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL64;
use choria_tokens::{
    MAX_TOKEN_BYTES, ProvisioningRequest, Seed, SigningKey, VerificationKey, issue_provisioning,
    read_provisioning_unverified, verify_provisioning, view,
};
use proptest::prelude::*;

const NOW: i64 = 1_795_219_200;

fn key() -> SigningKey {
    SigningKey::from_seed(Seed::from_bytes([9; 32]))
}

fn good() -> String {
    let request = ProvisioningRequest { urls: "nats://b:4222".into(), ..ProvisioningRequest::new("toomanysecrets") };
    issue_provisioning(&request, &key(), NOW).unwrap()
}

/// A token of our own making, signed with the right key whatever it says.
fn signed(header: &str, claims: &str) -> String {
    let text = format!("{}.{}", URL64.encode(header), URL64.encode(claims));
    let signature = Seed::from_bytes([9; 32]).sign(text.as_bytes());
    format!("{text}.{}", URL64.encode(signature))
}

fn refusal(token: &str) -> (&'static str, String) {
    let error = verify_provisioning(token, &key().verification_key(), NOW).unwrap_err();
    (error.reason(), error.to_string())
}

const GOOD_CLAIMS: &str = r#"{"cht":"toomanysecrets","purpose":"choria_provisioning"}"#;

#[test]
fn headers_decide_nothing_that_the_key_does_not_allow() {
    let verify = |header: &str| refusal(&signed(header, GOOD_CLAIMS));
    for alg in ["none", "None", "HS256", "HS512", "PS256", "ES256", "Ed25519", "eddsa", ""] {
        assert_eq!(verify(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#)).0, "algorithm", "{alg}");
    }
    assert_eq!(verify(r#"{"alg":"RS256"}"#).0, "key_type");
    assert_eq!(verify(r#"{"typ":"JWT"}"#).0, "malformed");
    assert_eq!(verify(r#"{"alg":5}"#).0, "malformed");
    assert_eq!(verify(r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#).0, "malformed");
    assert_eq!(verify("[]").0, "malformed");
    let (_, text) = verify("{\"alg\":\"\\u001b[31mred and very long text to fill a log\"}");
    assert!(!text.contains('\u{1b}') && text.len() < 120, "{text}");
    // A good header in another order, without typ, is fine.
    let token = signed(r#"{"kid":"x","alg":"EdDSA"}"#, GOOD_CLAIMS);
    verify_provisioning(&token, &key().verification_key(), NOW).unwrap();
}

#[test]
fn claims_of_wrong_types_are_named_without_their_value() {
    for (claims, expected) in [
        (r#"{"cht":424242424242,"purpose":"choria_provisioning"}"#, "claim cht must be text"),
        (r#"{"chpwd":["hunter2"],"purpose":"choria_provisioning"}"#, "claim chpwd must be text"),
        (r#"{"chs":"hunter2"}"#, "claim chs must be a boolean"),
        (r#"{"exp":"hunter2"}"#, "claim exp must be a time in unix seconds"),
        (r#"{"exp":1e300}"#, "claim exp must be a time in unix seconds"),
        (r#"{"nbf":-5}"#, "claim nbf must be a time in unix seconds"),
        (r#"{"cht":"a","cht":"b"}"#, "claim cht appears twice"),
        (r#"["hunter2"]"#, "the claims are not a JSON object"),
        ("hunter2", "the claims are not a JSON object"),
        ("", "the claims are not a JSON object"),
    ] {
        let (reason, text) = refusal(&signed(r#"{"alg":"EdDSA","typ":"JWT"}"#, claims));
        assert_eq!(
            (reason, text.as_str()),
            ("malformed", format!("token is malformed: {expected}").as_str()),
            "{claims}"
        );
    }
}

#[test]
fn times_have_no_leeway() {
    let verify = |claims: &str, now| {
        let claims = format!(r#"{{"purpose":"choria_provisioning",{claims}}}"#);
        let token = signed(r#"{"alg":"EdDSA","typ":"JWT"}"#, &claims);
        verify_provisioning(&token, &key().verification_key(), now).map_err(|error| error.reason())
    };
    assert!(verify(r#""exp":1000"#, 999).is_ok());
    assert_eq!(verify(r#""exp":1000"#, 1000), Err("expired"));
    assert!(verify(r#""exp":"1000.9""#, 999).is_ok());
    assert_eq!(verify(r#""nbf":1000"#, 999), Err("not_yet_valid"));
    assert!(verify(r#""nbf":1000"#, 1000).is_ok());
    assert!(verify(r#""iat":5000"#, 1000).is_ok());
    let chain = r#""tcs":"aa.bb","iss":"C-x.y","issexp":1000"#;
    assert!(verify(chain, 999).is_ok());
    assert_eq!(verify(chain, 1000), Err("chain_expired"));
    assert_eq!(verify(r#""tcs":"aa.bb","iss":"C-x.y""#, 999), Err("chain_expired"));
}

#[test]
fn line_ends_around_and_inside_the_signature_are_tolerated_and_padding_is_not() {
    let token = good();
    let verify = |token: &str| verify_provisioning(token, &key().verification_key(), NOW);
    verify(&format!("{token}\n")).unwrap();
    verify(&format!("{token}\r\n\r\n")).unwrap();
    let middle = token.len() - 20;
    verify(&format!("{}\n{}", &token[..middle], &token[middle..])).unwrap();
    assert_eq!(verify(&format!("{token}=")).unwrap_err().reason(), "signature");
    assert_eq!(verify(&format!("{token}==")).unwrap_err().reason(), "signature");
    assert_eq!(verify(&format!("{token} ")).unwrap_err().reason(), "signature");
    assert_eq!(verify(&format!("{token}.x")).unwrap_err().reason(), "malformed");
    let padded = signed(r#"{"alg":"EdDSA","typ":"JWT"}"#, GOOD_CLAIMS).replacen('.', "=.", 1);
    assert_eq!(verify(&padded).unwrap_err().reason(), "malformed");
}

#[test]
fn large_tokens_are_not_looked_at() {
    let (reason, _) = refusal(&"a".repeat(MAX_TOKEN_BYTES + 1));
    assert_eq!(reason, "too_large");
    let request = ProvisioningRequest {
        urls: "nats://b:4222".into(),
        facts: "f".repeat(MAX_TOKEN_BYTES / 2),
        ..ProvisioningRequest::new("t")
    };
    let large = issue_provisioning(&request, &key(), NOW).unwrap();
    verify_provisioning(&large, &key().verification_key(), NOW).unwrap();
}

#[test]
fn unusable_keys_are_refused_with_their_origin() {
    for text in
        ["", "33", &"z".repeat(64), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----BEGIN X"]
    {
        let error = VerificationKey::from_text(text).unwrap_err().to_string();
        assert!(error.starts_with("unsupported key in text: "), "{error}");
        let error = SigningKey::from_text(text).unwrap_err().to_string();
        assert!(error.starts_with("unsupported key in text: "), "{error}");
    }
    let error = VerificationKey::from_path_or_hex("/nowhere/signer.pem").unwrap_err().to_string();
    assert!(error.starts_with("could not read /nowhere/signer.pem"), "{error}");
    let seed = Seed::from_bytes([9; 32]);
    assert!(VerificationKey::from_path_or_hex(&seed.public_hex()).unwrap().is_ed25519());
    assert!(!format!("{:?} {:?}", seed, key()).contains("0909"));
}

proptest! {
    #[test]
    fn design6_every_outside_byte_of_a_token_is_parsed_or_refused(text in ".{0,400}") {
        let key = key().verification_key();
        prop_assert!(verify_provisioning(&text, &key, NOW).is_err());
        let _ = read_provisioning_unverified(&text);
        let _ = view::view(&text, None, NOW);
    }

    #[test]
    fn any_json_in_the_claims_is_parsed_or_refused(
        claims in "\\{(\"(cht|chs|chu|exp|nbf|tcs|extensions|purpose|agents|permissions)\":(null|true|5|-1|1e99|\"x\"|\\[1\\]|\\{\"a\":1\\}),){0,6}\"z\":0\\}",
    ) {
        let token = signed(r#"{"alg":"EdDSA","typ":"JWT"}"#, &claims);
        let _ = verify_provisioning(&token, &key().verification_key(), NOW);
        let _ = view::view(&token, None, NOW);
    }

    #[test]
    fn a_changed_token_does_not_verify(position in 0_usize..300, replacement in "[A-Za-z0-9_.-]") {
        let token = good();
        let position = position % token.len();
        let mut changed = token.clone();
        changed.replace_range(position..=position, &replacement);
        // The last characters of a segment carry unused bits that strict decoding refuses, so no other text is equal.
        prop_assert_eq!(verify_provisioning(&changed, &key().verification_key(), NOW).is_ok(), changed == token);
    }

    #[test]
    fn what_is_issued_verifies_and_says_the_same(
        secret in "[a-z]{1,20}", url in "[ -~]{1,60}", facts in "\\PC{0,20}", default in any::<bool>(), secure in any::<bool>(),
        now in 1_400_000_000_i64..4_000_000_000,
    ) {
        prop_assume!(!url.trim().is_empty());
        let request = ProvisioningRequest {
            urls: url.clone(), facts: facts.clone(), provision_default: default, secure, ..ProvisioningRequest::new(secret.as_str())
        };
        let token = issue_provisioning(&request, &key(), now).unwrap();
        let claims = verify_provisioning(&token, &key().verification_key(), now).unwrap();
        prop_assert!(claims.cht.matches(&secret));
        prop_assert_eq!((claims.chu, claims.chf, claims.chpd, claims.chs), (url, facts, default, secure));
        prop_assert_eq!(claims.jti.len(), 27);
    }
}
