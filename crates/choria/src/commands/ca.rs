//! `choria ca`: the built-in certificate authority for fleets that have none.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use choria_security::ca::{CA_FILE, CA_KEY_FILE, CertificateAuthority, IssueRequest, SigningPolicy};
use choria_security::cert::{self, CertificateFacts};
use choria_security::csr::{self, CsrFacts};
use choria_security::keys::{KeyKind, write_private_key};
use choria_security::{atomic, patterns::Patterns};
use serde_json::json;

use crate::cli::{CaCommand, CaInit, CaIssue, CaShow, CaSign, KeyType};
use crate::exit::{Exit, Failure, Outcome};

/// Largest request, certificate or authority file that is looked at.
const MAX_FILE: u64 = 256 * 1024;

/// Runs the command.
pub(crate) fn run(command: CaCommand) -> Outcome {
    let now = jiff::Timestamp::now().as_second();
    match command {
        CaCommand::Init(args) => init(&args, now),
        CaCommand::Issue(args) => issue(&args, now),
        CaCommand::Sign(args) => sign(&args, now),
        CaCommand::Show(args) => show(&args),
    }
}

fn init(args: &CaInit, now: i64) -> Outcome {
    let authority = CertificateAuthority::create(&args.dir, &args.name, kind(args.key_type), now)?;
    let (certificate, key) = (args.dir.join(CA_FILE), args.dir.join(CA_KEY_FILE));
    let mut out = std::io::stdout().lock();
    if args.json {
        let fingerprint = &authority.facts().fingerprint;
        writeln!(out, "{}", json!({"certificate": certificate, "key": key, "fingerprint": fingerprint}))?;
    } else {
        writeln!(out, "Certificate authority {:?}", args.name)?;
        writeln!(out, "  certificate {}  for every member of the fleet", certificate.display())?;
        writeln!(out, "  key         {}  keep it to yourself", key.display())?;
    }
    Ok(Exit::Ok)
}

fn issue(args: &CaIssue, now: i64) -> Outcome {
    let authority = load(&args.dir)?;
    let key_type = args.key_type.unwrap_or_else(|| key_type_for(&args.name));
    let mut request = IssueRequest::new(&args.name, kind(key_type));
    request.dns_names.clone_from(&args.dns);
    request.ip_addresses.clone_from(&args.ip);
    request.validity = args.validity;
    let files = Files::of(&args.out, &args.name);
    if let Some(existing) = [&files.certificate, &files.key].into_iter().find(|path| path.exists() && !args.force) {
        return Err(Failure::new(format!("{} already exists", existing.display())).hint("--force replaces it"));
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("could not make {}: {error}", args.out.display())))?;
    let issued = authority.issue(&request, now)?;
    write_private_key(&files.key, &issued.key)?;
    atomic::write_file(&files.certificate, issued.certificate.pem.as_bytes(), 0o644)?;
    atomic::write_file(&files.ca, authority.certificate_pem().as_bytes(), 0o644)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let Files { certificate, key, ca } = &files;
        let (serial, not_after) = (&issued.certificate.serial, issued.certificate.not_after);
        writeln!(
            out,
            "{}",
            json!({"certificate": certificate, "key": key, "ca": ca, "serial": serial, "not_after": not_after})
        )?;
    } else {
        writeln!(out, "plugin.security.provider = file")?;
        writeln!(out, "plugin.security.file.certificate = {}", absolute(&files.certificate).display())?;
        writeln!(out, "plugin.security.file.key = {}", absolute(&files.key).display())?;
        writeln!(out, "plugin.security.file.ca = {}", absolute(&files.ca).display())?;
    }
    Ok(Exit::Ok)
}

/// The three files of one member.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn of(directory: &Path, name: &str) -> Self {
        Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
            ca: directory.join(CA_FILE),
        }
    }
}

fn sign(args: &CaSign, now: i64) -> Outcome {
    let authority = load(&args.dir)?;
    let text = read(&args.csr)?;
    let facts = csr::inspect(&text).map_err(|error| Failure::from(error).context(args.csr.display()))?;
    let identity = match (&args.identity, facts.common_names.first()) {
        (Some(identity), _) => identity.clone(),
        (None, Some(name)) => name.clone(),
        (None, None) => return Err(Failure::new("the request has no name").hint("--identity NAME")),
    };
    let mut policy = SigningPolicy::new(&identity);
    policy.validity = args.validity;
    if args.allow_any_name {
        policy.deny = Patterns::new(std::iter::empty::<&str>())?;
    }
    let certificate = authority.sign_csr(&text, &policy, now).map_err(|error| {
        let denied = error.to_string().contains("denied");
        let failure = Failure::from(error).context(args.csr.display());
        if denied {
            failure.hint("names of people and programs are not for nodes: `choria ca issue`, or --allow-any-name")
        } else {
            failure
        }
    })?;
    match &args.out {
        Some(path) => atomic::write_file(path, certificate.pem.as_bytes(), 0o644)?,
        None => write!(std::io::stdout(), "{}", certificate.pem)?,
    }
    Ok(Exit::Ok)
}

fn show(args: &CaShow) -> Outcome {
    let path = if args.path.is_dir() { args.path.join(CA_FILE) } else { args.path.clone() };
    let text = read(&path)?;
    let mut out = std::io::stdout().lock();
    let context = |error: &dyn std::error::Error| Failure::from_error(error).context(path.display());
    let (kind, rows) = if text.contains("CERTIFICATE REQUEST-----") {
        ("request", request_rows(&csr::inspect(&text).map_err(|error| context(&error))?))
    } else {
        ("certificate", certificate_rows(&cert::first_from_pem(&text).map_err(|error| context(&error))?))
    };
    if args.json {
        let rows: serde_json::Map<_, _> =
            rows.into_iter().map(|(label, value)| (label.to_lowercase().replace(' ', "_"), value.into())).collect();
        writeln!(out, "{}", json!({"kind": kind, "file": path, "facts": rows}))?;
        return Ok(Exit::Ok);
    }
    for (label, value) in rows {
        writeln!(out, "{label:>12}: {value}")?;
    }
    Ok(Exit::Ok)
}

type Rows = Vec<(&'static str, String)>;

fn certificate_rows(facts: &CertificateFacts) -> Rows {
    let addresses: Vec<String> = facts.ip_addresses.iter().map(IpAddr::to_string).collect();
    let names = [facts.dns_names.clone(), addresses].concat().join(", ");
    vec![
        ("Subject", facts.subject.clone()),
        ("Issuer", facts.issuer.clone()),
        ("Names", names),
        ("Key", facts.key.to_string()),
        ("Authority", facts.is_ca.to_string()),
        ("Valid from", time(facts.not_before)),
        ("Valid until", time(facts.not_after)),
        ("Serial", facts.serial.clone()),
        ("Fingerprint", facts.fingerprint.clone()),
    ]
}

fn request_rows(facts: &CsrFacts) -> Rows {
    let names: Vec<String> =
        facts.alternative_names.iter().map(|name| format!("{}:{}", name.kind, name.value)).collect();
    vec![("Subject", facts.subject.clone()), ("Names", names.join(", ")), ("Key", facts.key.to_string())]
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn load(directory: &Path) -> Result<CertificateAuthority, Failure> {
    let missing = !directory.join(CA_FILE).exists();
    CertificateAuthority::load(directory).map_err(|error| {
        let failure = Failure::from(error);
        if missing { failure.hint(format!("choria ca init {}", directory.display())) } else { failure }
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)?;
        return Ok(text);
    }
    Ok(atomic::read_text(path, MAX_FILE)?)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn kind(key_type: KeyType) -> KeyKind {
    match key_type {
        KeyType::P256 => KeyKind::P256,
        KeyType::Ed25519 => KeyKind::Ed25519,
        KeyType::Rsa => KeyKind::Rsa2048,
    }
}

/// Callers have names that servers allow by default; they sign requests, which only RSA keys can (DESIGN §6).
fn key_type_for(name: &str) -> KeyType {
    if name.ends_with(".mcollective") || name.ends_with(".choria") { KeyType::Rsa } else { KeyType::P256 }
}
