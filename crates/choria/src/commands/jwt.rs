//! `choria jwt` and its older spelling `choria tool jwt` (spec 05 §7.8, §10.1; spec 01 §15).

use std::io::{IsTerminal, Write};
use std::path::Path;

use choria_tokens::{
    KeyError, ProvisioningRequest, SigningKey, TokenError, VerificationKey, issue_provisioning, keyfile, view,
};
use serde_json::{Map, Value};

use crate::cli::{JwtArgs, JwtCommand, JwtKeys, JwtProvisioning, JwtView, TokenClaims, ToolJwt};
use crate::exit::{Exit, Failure, Outcome};
use crate::print;

/// Runs `choria jwt`.
pub(crate) fn run(args: JwtArgs) -> Outcome {
    match (args.command, args.view) {
        (Some(JwtCommand::Provisioning(args)), _) => provisioning(&args),
        (Some(JwtCommand::View(args)), _) => show(&args.file, args.public.as_deref(), args.json, Heading::Today),
        (Some(JwtCommand::Keys(args)), _) => keys(&args),
        (None, Some(JwtView { file, public, json })) => show(&file, public.as_deref(), json, Heading::Today),
        (None, None) => Err(Failure::new("required argument 'file' not provided").hint("choria jwt view FILE [KEY]")),
    }
}

/// Runs `choria tool jwt FILE [KEY]`: an existing file is shown, an absent one is made.
pub(crate) fn run_old_form(args: ToolJwt) -> Outcome {
    if args.file.exists() {
        return show(&args.file, args.key.as_deref(), args.json, Heading::Seed);
    }
    let file = args.file.display();
    let Some(key) = &args.key else {
        return Err(Failure::new(format!("{file} does not exist, and without a private key it cannot be made"))
            .hint(format!("choria tool jwt {file} KEY --token TEXT --urls HOST:PORT")));
    };
    let mut request = request(&args.claims)?;
    request.secure = !args.insecure;
    request.username = args.username.unwrap_or_default();
    request.password = args.password.unwrap_or_default().into();
    create(&args.file, key, &request, false)
}

fn provisioning(args: &JwtProvisioning) -> Outcome {
    if args.file.exists() && !args.force {
        return Err(Failure::new(format!("{} already exists", args.file.display())).hint("--force replaces it"));
    }
    let mut request = request(&args.claims)?;
    request.secure = !args.insecure;
    request.username = args.username.clone().unwrap_or_default();
    request.password = args.password.clone().unwrap_or_default().into();
    request.extensions = args.extensions.as_deref().map(extensions).transpose()?;
    request.organization.clone_from(&args.org);
    request.protocol_v2 = args.protocol_v2;
    request.update = args.upgrade;
    request.validity = Some(args.validity);
    create(&args.file, &args.signing_key, &request, args.force)
}

fn request(claims: &TokenClaims) -> Result<ProvisioningRequest, Failure> {
    if claims.urls.is_empty() && claims.srv.is_none() {
        return Err(Failure::new("could not create token: URLs or a SRV Domain is required")
            .hint("--urls broker.example.net:4222, or --srv example.net"));
    }
    if !claims.urls.is_empty() && claims.srv.is_some() {
        return Err(Failure::new("could not create token: nodes refuse a token with both --urls and --srv"));
    }
    let token = match &claims.token {
        Some(token) => token.clone(),
        None => ask_for_token()?,
    };
    if token.is_empty() {
        return Err(Failure::new("could not create token: the token text is empty").hint("--token TEXT"));
    }
    let mut request = ProvisioningRequest::new(token);
    request.urls = claims.urls.join(",");
    request.srv_domain = claims.srv.clone().unwrap_or_default();
    request.provision_default = claims.default;
    request.registration = claims.registration.clone().unwrap_or_default();
    request.facts = claims.facts.clone().unwrap_or_default();
    Ok(request)
}

fn extensions(text: &str) -> Result<Map<String, Value>, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::new(format!("--extensions must be a JSON object: {error}")))
}

/// Asks on the terminal without showing what is typed. Without a terminal there is nobody to ask: the reference then
/// makes a token with an empty secret (spec 05 §12 row 41).
fn ask_for_token() -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("could not create token: no token text given and no terminal to ask on")
            .hint("--token TEXT: the secret that the provisioner shows to the node"));
    }
    write!(std::io::stderr(), "Provisioning Token: ")?;
    let token = crate::process::read_hidden_line()?;
    writeln!(std::io::stderr())?;
    Ok(token.trim().to_owned())
}

fn create(file: &Path, key: &Path, request: &ProvisioningRequest, replace: bool) -> Outcome {
    let signer = SigningKey::from_file(key).map_err(key_failure)?;
    if !request.secure {
        writeln!(std::io::stderr(), "warning: nodes will provision without message security, as --insecure asks for")?;
    }
    let now = jiff::Timestamp::now().as_second();
    let token = issue_provisioning(request, &signer, now)
        .map_err(|error| Failure::from(error).context("could not create token"))?;
    keyfile::write_token(file, &token, replace)?;
    let file = file.display();
    writeln!(std::io::stdout(), "Saved token to {file}, use 'choria jwt view {file}' to view it")?;
    Ok(Exit::Ok)
}

fn key_failure(error: KeyError) -> Failure {
    let missing = matches!(&error, KeyError::File(_));
    let failure = Failure::from(error).context("could not read signing key");
    if missing {
        failure.hint("`choria jwt keys FILE` makes an Ed25519 key, `openssl genrsa 2048` an RSA key")
    } else {
        failure.hint("it must be an RSA private key (PEM) or an Ed25519 seed (64 hex characters)")
    }
}

/// How the first line reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heading {
    /// `Validated Provisioning Token F`.
    Today,
    /// `JWT Token F`.
    Seed,
}

fn show(file: &Path, key: Option<&Path>, json: bool, heading: Heading) -> Outcome {
    let token = keyfile::read_token(file)?;
    let key = match key {
        Some(path) => Some(VerificationKey::from_file(path).map_err(|error| {
            Failure::from(error).context("could not read the public key").hint(
                "it must be the signer's certificate or public key (PEM) or Ed25519 public key (64 hex characters)",
            )
        })?),
        None => None,
    };
    let now = jiff::Timestamp::now().as_second();
    let mut out = std::io::stdout().lock();
    let text = |token: &view::View| print::token::text(token, &file.display().to_string(), heading, now);
    let viewed = match view::view(&token, key.as_ref(), now) {
        Ok(viewed) => viewed,
        // An expired token is shown before it is refused.
        Err(error @ TokenError::Expired { .. }) => {
            if let (Ok(viewed), false) = (view::view(&token, None, now), json) {
                write!(out, "{}", text(&viewed))?;
            }
            return Err(Failure::from(error).context("token validation failed"));
        }
        Err(error) => return Err(Failure::from(error).context("token validation failed")),
    };
    if json {
        writeln!(out, "{}", print::token::json(&viewed))?;
    } else {
        write!(out, "{}", text(&viewed))?;
    }
    if viewed.is_expired(now) {
        return Err(Failure::new(format!("the token {} is expired", file.display())));
    }
    Ok(Exit::Ok)
}

fn keys(args: &JwtKeys) -> Outcome {
    let mut out = std::io::stdout().lock();
    if args.show_public {
        let seed = keyfile::read_seed(&args.seed_file)?;
        writeln!(out, "Public Key: {}", seed.public_hex())?;
        return Ok(Exit::Ok);
    }
    // Neither file may be touched when one of them is in the way.
    if let Some(existing) =
        [Some(&args.seed_file), args.public.as_ref()].into_iter().flatten().find(|path| path.exists() && !args.force)
    {
        return Err(Failure::new(format!("{} already exists", existing.display())).hint("--force replaces it"));
    }
    let seed = keyfile::Seed::generate();
    keyfile::write_seed(&args.seed_file, &seed, args.force)?;
    if let Some(public) = &args.public {
        keyfile::write_public(public, &seed.public(), args.force)?;
    }
    writeln!(out, "Public Key: {}\n\nEd25519 seed saved in {}", seed.public_hex(), args.seed_file.display())?;
    Ok(Exit::Ok)
}
