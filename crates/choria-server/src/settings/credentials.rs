//! Whether the token and seed of a server that authenticates with a JWT fit together (spec 03 §6.2).

use std::path::Path;

use choria_config::{Config, SecurityProvider, keys};
use choria_tokens::{keyfile, read_server_unverified};

use super::decision::Credentials;

/// Looks at the files the configuration names, if it is of the kind that needs them. `now` in Unix seconds.
pub(super) fn check(config: &Config, now: i64) -> Credentials {
    let (seed, token) = if config.get(&keys::SECURITY_PROVIDER) == SecurityProvider::Choria {
        (config.get(&keys::SECURITY_CHORIA_SEED_FILE), config.get(&keys::SECURITY_CHORIA_TOKEN_FILE))
    } else if config.get(&keys::SECURITY_SERVER_ANON_TLS) {
        (config.get(&keys::SECURITY_SERVER_SEED_FILE), config.get(&keys::SECURITY_SERVER_TOKEN_FILE))
    } else {
        return Credentials::NotUsed;
    };
    let (Some(seed), Some(token)) = (seed, token) else {
        return Credentials::Bad("no seed or token file is configured".to_owned());
    };
    match identity(&seed, &token, now) {
        Err(reason) => Credentials::Bad(reason),
        Ok(identity) if identity != config.get(&keys::IDENTITY) => Credentials::OtherIdentity(identity),
        Ok(_) => Credentials::Good,
    }
}

fn identity(seed: &Path, token: &Path, now: i64) -> Result<String, String> {
    let seed_of = |error: choria_tokens::KeyFileError| error.to_string();
    let private = keyfile::read_seed(seed).map_err(seed_of)?;
    let text = keyfile::read_token(token).map_err(seed_of)?;
    let claims = read_server_unverified(&text).map_err(|error| format!("{}: {error}", token.display()))?;
    if !claims.standard.public_key.eq_ignore_ascii_case(&private.public_hex()) {
        return Err(format!("the public key in {} does not belong to {}", token.display(), seed.display()));
    }
    if let Some(exp) = claims.standard.exp
        && now >= exp
    {
        return Err(format!("the server token {} has expired", token.display()));
    }
    Ok(claims.identity)
}
