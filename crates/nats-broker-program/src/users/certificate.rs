//! Users that certificates name (`verify_and_map`): e-mail, DNS name or URI of the certificate, then its subject
//! (spec 07 §7).

use std::collections::HashMap;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::User;

/// The names of a certificate in the order in which they are looked up.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let (mut emails, mut hosts, mut uris) = (Vec::new(), Vec::new(), Vec::new());
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::RFC822Name(email) => emails.push((*email).to_owned()),
                GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                _ => {}
            }
        }
    }
    emails.extend(hosts);
    emails.extend(uris);
    emails.push(distinguished(certificate.subject()));
    Ok(emails)
}

/// The user that the first fitting name names.
pub(super) fn find<'a>(names: &[String], users: &'a HashMap<String, User>) -> Option<(&'a String, &'a User)> {
    if let Some(found) = names.iter().find_map(|name| users.get_key_value(name)) {
        return Some(found);
    }
    // A subject may be written in the configuration in another order and with blanks.
    let subject = parts(names.last()?);
    users.iter().find(|(name, _)| name.contains('=') && parts(name) == subject)
}

/// A subject as RFC 2253 writes it: the last part first, `CN=me,O=us`.
fn distinguished(name: &X509Name<'_>) -> String {
    let rdns: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|attribute| {
                    let value = attribute.as_str().unwrap_or_default();
                    format!("{}={}", attribute_name(&attribute.attr_type().to_id_string()), escaped(value))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    rdns.iter().rev().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn attribute_name(oid: &str) -> &str {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "POSTALCODE",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        other => other,
    }
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if ",+\"\\<>;=".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Parts of a written subject without regard to their order and the case of their types.
fn parts(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut part = String::new();
    let mut is_escaped = false;
    for c in text.chars() {
        if c == ',' && !is_escaped {
            all.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    all.push(part);
    let mut all: Vec<String> = all
        .iter()
        .map(|part| match part.split_once('=') {
            Some((kind, value)) => format!("{}={}", kind.trim().to_ascii_uppercase(), value.trim()),
            None => part.trim().to_owned(),
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use nats_broker::Grant;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::super::Kinds;
    use super::*;

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["host.test".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name("me@x.test".try_into().unwrap()));
        params.subject_alt_names.push(SanType::URI("spiffe://x/me".try_into().unwrap()));
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "us, all");
        params.distinguished_name.push(DnType::CommonName, "me");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn users(names: &[&str]) -> HashMap<String, User> {
        let user = |name: &str| User { secret: None, grant: Grant::new(name), kinds: Kinds::ALL };
        names.iter().map(|name| ((*name).to_owned(), user(name))).collect()
    }

    #[test]
    fn names_are_looked_up_in_the_order_of_the_reference() {
        let names = names(&certificate()).unwrap();
        assert_eq!(names, ["me@x.test", "host.test", "spiffe://x/me", "CN=me,O=us\\, all,C=DE"]);
        for (configured, found) in [
            (&["host.test", "me@x.test"][..], Some("me@x.test")),
            (&["spiffe://x/me", "host.test"], Some("host.test")),
            (&["C=DE, o=us\\, all, CN=me"], Some("C=DE, o=us\\, all, CN=me")),
            (&["CN=me,O=us\\, all,C=DE"], Some("CN=me,O=us\\, all,C=DE")),
            (&["CN=me", "me", "CN=me,O=us", ""], None),
        ] {
            let users = users(configured);
            assert_eq!(find(&names, &users).map(|(name, _)| name.as_str()), found, "{configured:?}");
        }
        assert!(super::names(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
