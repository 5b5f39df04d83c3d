//! `choria buildinfo` (spec 03 §13, spec 05 §7.9).

use std::io::Write;

use choria_config::{BuildSettings, Environment};
use choria_tokens::{ProvisioningClaims, keyfile, read_provisioning_unverified};

use crate::cli::BuildinfoArgs;
use crate::exit::{Exit, Outcome};
use crate::print::buildinfo as print;

/// Libraries inside, one `name version` per line.
const DEPENDENCIES: &str = include_str!(concat!(env!("OUT_DIR"), "/dependencies.txt"));

/// Runs the command. It reads no configuration and uses no network; the token is read from where the build looks for it.
pub(crate) fn run(args: &BuildinfoArgs) -> Outcome {
    let environment = Environment::from_process();
    let build = BuildSettings::compiled();
    let token_file = build.provisioning_jwt(None, &environment);
    let claims = token_file.as_deref().and_then(|file| match read_token(file) {
        Ok(claims) => claims,
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "warning: the token {} cannot be used: {reason}", file.display());
            None
        }
    });
    let facts = print::Facts {
        build: &build,
        token_file: token_file.as_deref(),
        claims: claims.as_ref(),
        rust_version: env!("CHORIA_RUSTC_VERSION"),
        dependencies: args.dependencies.then_some(DEPENDENCIES),
    };
    let sections = print::sections(&facts);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", print::json(&sections))?;
    } else {
        write!(out, "{}", print::text(&sections))?;
    }
    Ok(Exit::Ok)
}

/// The token's claims; none when there is no file.
fn read_token(file: &std::path::Path) -> Result<Option<ProvisioningClaims>, String> {
    if !file.exists() {
        return Ok(None);
    }
    let token = keyfile::read_token(file).map_err(|error| error.to_string())?;
    let claims = read_provisioning_unverified(&token).map_err(|error| error.to_string())?;
    claims.check_node_use().map_err(|error| error.to_string())?;
    Ok(Some(claims))
}
