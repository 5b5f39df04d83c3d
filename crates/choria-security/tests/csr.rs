//! Certificate requests of nodes: every row of `testdata/provisioner/csr-cases.jsonl`, and worse ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use choria_security::csr::{self, CsrError, CsrPolicy, MAX_CSR_BYTES, Subject};
use choria_security::keys::{KeyKind, PrivateKey, PublicKeyKind};
use choria_security::patterns::Patterns;
use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

const IDENTITY: &str = "n1.example.net";

fn testdata(sub: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata")).join(sub);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn judge(text: &str, identity: &str) -> Result<(), CsrError> {
    csr::check(&csr::inspect(text)?, &CsrPolicy::new(identity))
}

/// What we say to each row; rows not listed are accepted.
const REFUSED: [(&str, &str); 19] = [
    ("empty", "missing"),
    ("pem-nobody", "undecodable"),
    ("pem-garbage", "undecodable"),
    ("pem-othertype", "label"),
    ("two", "second_block"),
    ("wrongcn", "common_name"),
    ("case", "common_name"),
    ("nocn", "no_common_name"),
    ("twocn", "denied_name"),
    ("san-denied", "denied_name"),
    ("san-mcollective", "denied_name"),
    ("san-upper", "denied_name"),
    ("san-other", "foreign_name"),
    ("san-dot", "denied_name"),
    ("san-ip", "foreign_name"),
    ("san-mail", "denied_name"),
    ("san-uri", "denied_name"),
    ("rsa1024", "weak_key"),
    ("forgedsig", "signature"),
];

/// Rows that the original accepts and we refuse.
const STRICTER: [&str; 10] =
    ["pem-othertype", "two", "twocn", "san-upper", "san-other", "san-dot", "san-ip", "san-mail", "san-uri", "rsa1024"];

#[test]
fn design6_csr_rows_are_judged_as_by_the_original_but_stricter_where_named() {
    let rows: Vec<Value> =
        testdata("provisioner/csr-cases.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 29);
    for row in rows {
        let case = row["case"].as_str().unwrap();
        // A reply whose `csr` is a number never reaches this room; the row without a reply is made below.
        let Some(text) = row["reply"]["csr"].as_str() else {
            assert!(matches!(case, "csrnum" | "huge"), "{case}");
            continue;
        };
        let result = judge(text, row["identity"].as_str().unwrap());
        let expected = match case {
            "ident-mco" => Some("denied_name"),
            _ => REFUSED.iter().find(|(name, _)| *name == case).map(|(_, reason)| *reason),
        };
        assert_eq!(result.as_ref().err().map(CsrError::reason), expected, "{case}: {result:?}");
        let original_accepts = row["outcome"] == "accepted";
        let stricter = STRICTER.contains(&case) || case == "forgedsig";
        assert_eq!(original_accepts && expected.is_some(), stricter, "{case}");
        assert!(original_accepts || expected.is_some(), "{case}: never laxer than the original");
    }
}

#[test]
fn design6_a_reply_that_is_not_pem_is_a_refusal_and_not_a_crash() {
    for text in ["hello", "-----BEGIN CERTIFICATE REQUEST-----", "\0", "-----BEGIN", "MIICXzCCAUcCAQAw"] {
        assert_eq!(judge(text, IDENTITY).unwrap_err(), CsrError::NotPem, "{text:?}");
    }
    assert_eq!(judge(" \n", IDENTITY).unwrap_err(), CsrError::Missing);
}

/// A request of our own making.
struct Forge {
    params: CertificateParams,
    key: KeyPair,
}

impl Forge {
    fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    fn reason(&self) -> Option<&'static str> {
        let text = self.params.serialize_request(&self.key).unwrap().pem().unwrap();
        judge(&text, IDENTITY).err().map(|error| error.reason())
    }
}

fn san(name: SanType) -> Option<&'static str> {
    Forge::new(IDENTITY).with(|params| params.subject_alt_names.push(name)).reason()
}

#[test]
fn design6_names_of_every_kind_are_checked() {
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    assert_eq!(san(dns(IDENTITY)), None);
    assert_eq!(san(dns("N1.example.net")), Some("foreign_name"));
    assert_eq!(san(dns("n1.example.net.")), Some("foreign_name"));
    assert_eq!(san(dns("*.example.net")), Some("foreign_name"));
    assert_eq!(san(dns("BOB.MCOLLECTIVE")), Some("denied_name"));
    assert_eq!(san(dns("bob.mcollective.")), Some("denied_name"));
    assert_eq!(san(SanType::IpAddress("10.0.0.1".parse().unwrap())), Some("foreign_name"));
    assert_eq!(san(SanType::Rfc822Name("root@bob.mcollective".try_into().unwrap())), Some("denied_name"));
    assert_eq!(san(SanType::Rfc822Name("root@example.net".try_into().unwrap())), Some("foreign_name"));
    assert_eq!(san(SanType::URI("https://bob.choria/x".try_into().unwrap())), Some("denied_name"));
    assert_eq!(san(SanType::URI("https://example.net/x".try_into().unwrap())), Some("foreign_name"));
    let other = SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "bob@x".to_owned().into()));
    assert_eq!(san(other), Some("foreign_name"));
}

#[test]
fn subjects_must_be_the_identity_and_nothing_denied() {
    let reason = |name: &str| Forge::new(name).reason();
    assert_eq!(reason(IDENTITY), None);
    assert_eq!(reason("n1.example.net "), Some("common_name"));
    assert_eq!(reason("n1.example.net\0"), Some("common_name"));
    assert_eq!(reason("N1.EXAMPLE.NET"), Some("common_name"));
    assert_eq!(reason("x.PRIVILEGED.choria"), Some("denied_name"));
    let organization = |text: &str| {
        Forge::new(IDENTITY).with(|params| params.distinguished_name.push(DnType::OrganizationName, text)).reason()
    };
    assert_eq!(organization("Example"), None);
    assert_eq!(organization("x.privileged.choria"), Some("denied_name"));
}

#[test]
fn requests_for_more_than_a_node_needs_are_refused() {
    let reason = |change: fn(&mut CertificateParams)| Forge::new(IDENTITY).with(change).reason();
    assert_eq!(reason(|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)), Some("extension"));
    assert_eq!(reason(|p| p.is_ca = IsCa::ExplicitNoCa), None);
    assert_eq!(reason(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), Some("extension"));
    assert_eq!(reason(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]), None);
    assert_eq!(reason(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]), Some("extension"));
    assert_eq!(reason(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]), None);
    let unknown = |params: &mut CertificateParams| {
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]));
    };
    assert_eq!(reason(unknown), Some("extension"));
}

#[test]
fn weak_and_odd_keys_are_refused() {
    let odd = Forge { key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(), ..Forge::new(IDENTITY) };
    assert_eq!(odd.reason(), Some("key_kind"));
    let p384 = Forge { key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), ..Forge::new(IDENTITY) };
    assert_eq!(p384.reason(), None);
    // A policy can ask for more, never for less.
    let key = PrivateKey::generate(KeyKind::Rsa2048).unwrap();
    let facts = csr::inspect(&csr::create(&key, &Subject::common_name(IDENTITY)).unwrap()).unwrap();
    let policy = |bits| CsrPolicy { min_rsa_bits: bits, ..CsrPolicy::new(IDENTITY) };
    csr::check(&facts, &policy(1024)).unwrap();
    assert_eq!(csr::check(&facts, &policy(3072)).unwrap_err().reason(), "weak_key");
}

#[test]
fn design6_twenty_thousand_names_are_too_large_to_look_at() {
    let forge = Forge::new(IDENTITY).with(|params| {
        params.subject_alt_names =
            (0..20_000).map(|i| SanType::DnsName(format!("h{i}.x").try_into().unwrap())).collect();
    });
    assert_eq!(forge.reason(), Some("too_large"));
}

#[test]
fn a_custom_deny_list_replaces_the_default() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let facts = csr::inspect(&csr::create(&key, &Subject::common_name("db1.example.net")).unwrap()).unwrap();
    let policy = CsrPolicy { deny: Patterns::deny(["/^db/"]).unwrap(), ..CsrPolicy::new("db1.example.net") };
    assert_eq!(
        csr::check(&facts, &policy).unwrap_err().to_string(),
        "db1.example.net matches denied certificate pattern /^db/"
    );
    csr::check(&facts, &CsrPolicy::new("db1.example.net")).unwrap();
}

#[test]
fn made_requests_pass_and_look_like_the_originals() {
    for (kind, seen) in [
        (KeyKind::P256, PublicKeyKind::P256),
        (KeyKind::Ed25519, PublicKeyKind::Ed25519),
        (KeyKind::Rsa2048, PublicKeyKind::Rsa { bits: 2048 }),
    ] {
        let key = PrivateKey::generate(kind).unwrap();
        let subject = Subject {
            country: "MT".into(),
            locality: "Valletta".into(),
            organization: "Example".into(),
            organizational_unit: "Ops".into(),
            common_name: IDENTITY.into(),
        };
        let text = csr::create(&key, &subject).unwrap();
        let facts = csr::inspect(&text).unwrap();
        csr::check(&facts, &CsrPolicy::new(IDENTITY)).unwrap();
        assert_eq!(facts.subject, "C=MT, L=Valletta, O=Example, OU=Ops, CN=n1.example.net");
        assert_eq!((facts.key, facts.alternative_names.len()), (seen, 0));
        assert_eq!(facts.pem, text);
        assert!(key.matches(&facts.public_der));
    }
    // The subject of a request that the original made, byte for byte.
    let captured: Value =
        serde_json::from_str(&testdata("protocol/v1/messages/42-provisioning-gencsr-reply.json")).unwrap();
    let theirs = captured["decoded"]["payload"]["data"]["csr"].as_str().unwrap();
    let facts = csr::inspect(theirs).unwrap();
    let ours =
        csr::create(&PrivateKey::generate(KeyKind::Rsa2048).unwrap(), &Subject::common_name(&facts.common_names[0]));
    let subject = |text: &str| {
        let block = pem::parse(text).unwrap();
        let (_, request) = X509CertificationRequest::from_der(block.contents()).unwrap();
        request.certification_request_info.subject.as_raw().to_vec()
    };
    assert_eq!(subject(&ours.unwrap()), subject(theirs));
    csr::check(&facts, &CsrPolicy::new(&facts.common_names[0])).unwrap();
}

#[test]
fn text_that_no_printable_string_holds_is_written_as_utf8() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    for name in ["*.example.net", "n\u{f6}de", "two\nlines", "under_score"] {
        let facts = csr::inspect(&csr::create(&key, &Subject::common_name(name)).unwrap()).unwrap();
        assert_eq!(facts.common_names, [name]);
        assert!(!facts.subject.contains('\n'));
    }
}

proptest! {
    #[test]
    fn design6_every_outside_byte_of_a_csr_is_parsed_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", body));
        prop_assert!(judge(&text, IDENTITY).is_err());
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,300}") {
        prop_assert!(judge(&text, IDENTITY).is_err());
    }
}

#[test]
fn the_size_limit_is_exact() {
    let over = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}", "A".repeat(MAX_CSR_BYTES));
    assert_eq!(judge(&over, IDENTITY).unwrap_err().reason(), "too_large");
}

#[test]
fn a_request_with_any_bit_changed_is_refused() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let key = PrivateKey::generate(kind).unwrap();
        let block = pem::parse(csr::create(&key, &Subject::common_name(IDENTITY)).unwrap()).unwrap();
        let der = block.into_contents();
        for bit in 0..der.len() * 8 {
            let mut changed = der.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let text = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", changed));
            assert!(judge(&text, IDENTITY).is_err(), "{kind:?} bit {bit}");
        }
    }
}
