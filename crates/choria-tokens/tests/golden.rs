//! What the original issued, accepted and refused: every row of `testdata/protocol/tokens` and of
//! `testdata/provisioner/jwt-cases.jsonl`. Where we differ on purpose: `docs/differences/choria-tokens.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use choria_tokens::claims::to_text;
use choria_tokens::{
    ClientClaims, ProvisioningClaims, ProvisioningRequest, ServerClaims, SigningKey, TokenError, VerificationKey,
    issue_provisioning_with, keyfile, peek_purpose, read_client_unverified, read_provisioning_unverified,
    read_server_unverified, verify_client, verify_provisioning, verify_server, view,
};
use serde_json::Value;
use svix_ksuid::{Ksuid, KsuidLike};

/// Clock of `testdata/provisioner`: 2026-11-21T00:00:00Z.
const NOW: i64 = 1_795_219_200;
/// Clock of `testdata/protocol/tokens`, the second after the last token was issued.
const LAB_NOW: i64 = 1_795_169_915;

fn testdata(sub: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata")).join(sub)
}

fn text(sub: &str) -> String {
    fs::read_to_string(testdata(sub)).unwrap_or_else(|error| panic!("{sub}: {error}"))
}

fn lab_key(name: &str) -> VerificationKey {
    VerificationKey::from_file(testdata(&format!("protocol/tokens/keys/{name}"))).unwrap()
}

/// Every token of the laboratory with its decoded form.
fn tokens() -> Vec<(String, String, Value)> {
    let mut names: Vec<String> = fs::read_dir(testdata("protocol/tokens"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().strip_suffix(".jwt").map(str::to_owned))
        .collect();
    names.sort();
    assert_eq!(names.len(), 20, "{names:?}");
    names
        .into_iter()
        .map(|name| {
            let token = text(&format!("protocol/tokens/{name}.jwt"));
            let decoded = serde_json::from_str(&text(&format!("protocol/tokens/{name}.json"))).unwrap();
            (name, token, decoded)
        })
        .collect()
}

#[test]
fn claims_of_every_token_are_read_and_written_byte_for_byte() {
    for (name, token, decoded) in tokens() {
        let expected = decoded["claims_text"].as_str().unwrap();
        let written = match peek_purpose(&token).unwrap().as_str() {
            "choria_provisioning" => to_text::<ProvisioningClaims>(&read_provisioning_unverified(&token).unwrap()),
            "choria_client_id" => to_text::<ClientClaims>(&read_client_unverified(&token).unwrap()),
            "choria_server" => to_text::<ServerClaims>(&read_server_unverified(&token).unwrap()),
            other => panic!("{name}: purpose {other}"),
        };
        assert_eq!(written.unwrap(), expected, "{name}");
    }
}

#[test]
fn issuing_again_gives_the_identical_token() {
    for (name, key) in [("provisioning-rs256", "rs256-signer.key"), ("provisioning-eddsa", "org.seed")] {
        let token = text(&format!("protocol/tokens/{name}.jwt"));
        let claims = read_provisioning_unverified(&token).unwrap();
        let (iat, exp) = (claims.iat.unwrap(), claims.exp.unwrap());
        let request = ProvisioningRequest {
            secure: claims.chs,
            urls: claims.chu.clone(),
            srv_domain: claims.chsrv.clone(),
            provision_default: claims.chpd,
            registration: claims.chrd.clone(),
            facts: claims.chf.clone(),
            username: claims.chusr.clone(),
            password: claims.chpwd.clone(),
            extensions: claims.extensions.clone(),
            protocol_v2: claims.v2,
            update: claims.update,
            validity: Some(Duration::from_secs(u64::try_from(exp - iat).unwrap())),
            ..ProvisioningRequest::new(claims.cht.clone())
        };
        let id = Ksuid::from_base62(&claims.jti).unwrap();
        let payload: [u8; 16] = id.payload().try_into().unwrap();
        let key = SigningKey::from_file(testdata(&format!("protocol/tokens/keys/{key}"))).unwrap();
        assert_eq!(issue_provisioning_with(&request, &key, iat, payload).unwrap(), token, "{name}");
    }
}

#[test]
fn every_token_verifies_with_its_signer_and_with_no_other() {
    let (org, org2, rsa) = (lab_key("org.public"), lab_key("org2.public"), lab_key("rs256-signer.pem"));
    for (name, token, decoded) in tokens() {
        let verify = |key: &VerificationKey| match decoded["claims"]["purpose"].as_str().unwrap() {
            "choria_provisioning" => verify_provisioning(&token, key, LAB_NOW).map(|_| ()),
            "choria_client_id" => verify_client(&token, key, LAB_NOW).map(|_| ()),
            _ => verify_server(&token, key, LAB_NOW).map(|_| ()),
        };
        let (signer, other, wrong_type) = match name.as_str() {
            "foreign" => (&org2, &org, &rsa),
            "provisioning-rs256" => (&rsa, &lab_key_of_another_rsa(), &org),
            _ => (&org, &org2, &rsa),
        };
        if name.starts_with("leaf") {
            // Leaves of a trust chain need protocol v2; they are refused for that reason whatever the key.
            assert_eq!(verify(signer).unwrap_err(), TokenError::ChainSigned, "{name}");
            continue;
        }
        if name == "short" {
            assert_eq!(verify(signer).unwrap_err().reason(), "expired");
            verify_client(&token, signer, 1_795_169_913).unwrap();
        } else {
            verify(signer).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(verify(other).unwrap_err().reason(), "signature", "{name}");
        assert_eq!(verify(wrong_type).unwrap_err().reason(), "key_type", "{name}");
    }
}

/// Some RSA key that signed nothing of the laboratory.
fn lab_key_of_another_rsa() -> VerificationKey {
    VerificationKey::from_file(testdata("provisioner/keys/signer.pem")).unwrap()
}

#[test]
fn seed_and_public_key_files_belong_together() {
    let keys = fs::read_dir(testdata("protocol/tokens/keys")).unwrap().map(|entry| entry.unwrap().path());
    let mut pairs = 0;
    for seed_file in keys.filter(|path| path.extension().is_some_and(|extension| extension == "seed")) {
        let seed = keyfile::read_seed(&seed_file).unwrap();
        let public_file = seed_file.with_extension("public");
        assert_eq!(keyfile::read_public(&public_file).unwrap(), seed.public(), "{}", seed_file.display());
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        keyfile::write_seed(&copy, &seed, false).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), fs::read(&seed_file).unwrap());
        keyfile::write_public(&copy, &seed.public(), true).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), fs::read(&public_file).unwrap());
        pairs += 1;
    }
    assert_eq!(pairs, 15);
}

/// The reason we refuse each refused row with; `accepted` rows are accepted.
const REFUSALS: [(&str, &str); 14] = [
    ("expired", "expired"),
    ("nbf-future", "not_yet_valid"),
    ("other-signer", "signature"),
    ("none", "algorithm"),
    ("hs-cert", "algorithm"),
    ("hs-pub", "algorithm"),
    ("purpose-server", "purpose"),
    ("nopurpose-nosub", "purpose"),
    ("iss-C", "chain_expired"),
    ("tcs-issexp-past", "chain_issuer"),
    ("tcs-issexp-ok", "chain_issuer"),
    ("empty", "missing"),
    ("garbage", "malformed"),
    ("two-dots", "malformed"),
];

#[test]
fn provisioning_tokens_are_judged_as_by_the_original() {
    let key = VerificationKey::from_file(testdata("provisioner/keys/signer.pem")).unwrap();
    let rows = text("provisioner/jwt-cases.jsonl");
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 37);
    for row in rows {
        let case = row["case"].as_str().unwrap();
        let result = verify_provisioning(row["jwt"].as_str().unwrap(), &key, NOW);
        assert_eq!(result.is_ok(), row["accepted"].as_bool().unwrap(), "{case}: {result:?}");
        if let Err(error) = result {
            let expected = match case {
                "C-tcs-issexp-past" => "chain_expired",
                "ext-str" => "malformed",
                _ => REFUSALS.iter().find(|(name, _)| *name == case).unwrap_or_else(|| panic!("{case}: {error}")).1,
            };
            assert_eq!(error.reason(), expected, "{case}: {error}");
            assert!(!error.to_string().contains("toomanysecrets"), "{case}: {error}");
        }
    }
}

#[test]
fn the_reasons_teach() {
    let key = VerificationKey::from_file(testdata("provisioner/keys/signer.pem")).unwrap();
    let error = |case: &str| {
        let rows = text("provisioner/jwt-cases.jsonl");
        let row = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|row| row["case"] == case);
        verify_provisioning(row.unwrap()["jwt"].as_str().unwrap(), &key, NOW).unwrap_err().to_string()
    };
    assert_eq!(error("expired"), "token is expired: exp 1700000000, now 1795219200");
    assert_eq!(error("hs-pub"), "token algorithm HS256 is not allowed, only RS256, RS384, RS512 and EdDSA are");
    assert!(error("tcs-issexp-ok").contains("the organization issuer has to sign it directly"));
    assert!(error("other-signer").contains("keys/signer.pem"));
    assert_eq!(error("ext-str"), "token is malformed: claim extensions must be an object");
}

#[test]
fn provisioner_laboratory_tokens_verify_with_their_files() {
    let signer = VerificationKey::from_file(testdata("provisioner/keys/signer.pem")).unwrap();
    let org = VerificationKey::from_file(testdata("provisioner/keys/org.public")).unwrap();
    let rs256 = verify_provisioning(&text("provisioner/provisioning-rs256.jwt"), &signer, NOW).unwrap();
    assert!(rs256.cht.matches("toomanysecrets") && rs256.chpd);
    assert_eq!((rs256.sub.as_str(), rs256.purpose.as_str()), ("choria_provisioning", "choria_provisioning"));
    assert_eq!(rs256.extensions.as_ref().unwrap()["tenant"], "t9");
    let eddsa = verify_provisioning(&text("provisioner/provisioning-eddsa.jwt"), &org, NOW).unwrap();
    assert!(eddsa.v2 && eddsa.update && eddsa.extensions.is_none());

    let issuer = verify_client(&text("provisioner/keys/issuer.jwt"), &org, NOW).unwrap();
    let org = keyfile::read_public(testdata("provisioner/keys/org.public")).unwrap();
    let signed = format!("{}.{}", issuer.standard.jti, issuer.standard.public_key);
    let signature = hex::decode(&issuer.standard.tcs).unwrap();
    assert!(keyfile::verify_ed25519(&org, signed.as_bytes(), &signature));
    let seed = keyfile::read_seed(testdata("provisioner/keys/throwaway-issuer.seed")).unwrap();
    assert_eq!(seed.public(), keyfile::read_public(testdata("provisioner/keys/issuer.public")).unwrap());
}

/// The token of the recorded messages: the file, what a node replied with, and its signer.
#[test]
fn the_token_of_the_recorded_messages_verifies_with_its_signer() {
    let signer = VerificationKey::from_file(testdata("protocol/v1/keys/provisioning-signer.pem")).unwrap();
    let message: Value = serde_json::from_str(&text("protocol/v1/messages/39-provisioning-jwt-reply.json")).unwrap();
    let sent = message["decoded"]["payload"]["data"]["jwt"].as_str().unwrap();
    for token in [text("protocol/v1/keys/provisioning.jwt").trim(), sent] {
        let claims = verify_provisioning(token, &signer, message["time"].as_i64().unwrap()).unwrap();
        assert!(claims.cht.matches("toomanysecrets") && claims.chpd && !claims.chs);
    }
    let other = VerificationKey::from_file(testdata("provisioner/keys/signer.pem")).unwrap();
    assert_eq!(verify_provisioning(sent, &other, NOW).unwrap_err().reason(), "signature");
}

#[test]
fn viewing_shows_claims_and_hides_secrets() {
    let token = text("protocol/tokens/provisioning-eddsa.jwt");
    let seen = view::view(&token, None, LAB_NOW).unwrap();
    assert_eq!((seen.title(), seen.validated), ("Provisioning Token", false));
    assert_eq!(seen.expires(), Some(2_110_529_914));
    assert!(!seen.is_expired(LAB_NOW) && seen.is_expired(2_110_529_914));
    let claims = seen.redacted();
    assert_eq!((&claims["cht"], &claims["chpwd"], &claims["chusr"]), (&"*****".into(), &"*****".into(), &"u".into()));
    assert!(!format!("{seen:?}").contains("toomanysecrets"));
    assert!(view::view(&token, Some(&lab_key("org.public")), LAB_NOW).unwrap().validated);
    assert!(view::view(&token, Some(&lab_key("org2.public")), LAB_NOW).is_err());

    let client = view::view(&text("protocol/tokens/alice.jwt"), None, LAB_NOW).unwrap();
    assert_eq!(client.title(), "Client Identification Token");
    let server = view::view(&text("protocol/tokens/node1.jwt"), Some(&lab_key("org.public")), LAB_NOW).unwrap();
    assert_eq!((server.title(), server.validated), ("Server Token", true));
}
