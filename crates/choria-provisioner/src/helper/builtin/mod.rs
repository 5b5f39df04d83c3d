//! The built-in helper: decides by rules of a file, in this process, and has the built-in authority sign.
//!
//! ```yaml
//! defaults:
//!   configuration:
//!     plugin.choria.middleware_hosts: broker.example.net:4222
//! rules:
//!   - identity: "*.old.example.net"
//!     shutdown: retired
//!   - identity: ["web*.example.net", "/^db[0-9]+/"]   # one of them
//!     facts: [os.family=debian, "mem>1024"]           # all of them, as in fact filters
//!     jwt: extensions.tenant=t9                       # claims of the token, with features.jwt
//!     configuration:
//!       collectives: mcollective,{{facts.dc}}
//! ```
//!
//! The first rule that matches decides. A node that no rule matches, or that has no value for a variable, is put off with
//! that reason. Settings that every node with a certificate of ours needs are added where the rule does not set them. The
//! authority may be replaced while it is in use: certificate and CA of one node always come from one and the same.
//!
//! | Module | Holds |
//! |---|---|
//! | [`rules`] | the file |
//! | `template` | values with variables |
//! | `settings` | whether a node can read what a rule gives it |
//! | `decide` | a node and the rules, without I/O |
//! | [`simulate`] | what the rules would say about a node, and why |

mod decide;
pub mod rules;
mod settings;
pub mod simulate;
mod template;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use choria_security::ca::{CaError, CertificateAuthority, SigningPolicy};
use choria_security::ca_store::AuthorityStore;
use choria_security::patterns::Patterns;
use choria_tokens::ProvisioningClaims;
use serde_json::{Map, Value};

pub use rules::RuleSet;

use self::decide::Verdict;
use self::template::View;
use super::{HelperAnswer, HelperError, Question, RunNotes};
use crate::config::{BuiltinHelper, ConfigError, ProvisionerConfig};
use crate::rules::CheckedCsr;

/// How often the authority's files are looked at, in milliseconds. Two system calls, so once a second costs nothing.
const LOOK: u64 = 1000;

/// Why the built-in helper cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The rules.
    #[error("rules: {0}")]
    Rules(#[from] ConfigError),
    /// The authority.
    #[error("ca_directory {}: {source}; `choria ca init` makes an authority", .directory.display())]
    Authority {
        /// The directory.
        directory: PathBuf,
        /// What is wrong.
        source: CaError,
    },
}

/// Decides about nodes.
#[derive(Debug)]
pub struct Builtin {
    rules: RuleSet,
    authority: Option<AuthorityStore>,
    deny: Patterns,
    began: Instant,
    /// When the authority's files are looked at next, in milliseconds after `began`.
    next_look: AtomicU64,
}

impl Builtin {
    /// Reads rules and authority.
    ///
    /// # Errors
    /// See [`BuiltinError`]; then nothing is taken over.
    pub fn load(settings: &BuiltinHelper, config: &ProvisionerConfig) -> Result<Self, BuiltinError> {
        let rules = RuleSet::load(&settings.rules, config.features)?;
        let authority = settings.ca_directory.as_ref().map(|directory| {
            AuthorityStore::open(directory)
                .map_err(|source| BuiltinError::Authority { directory: directory.clone(), source })
        });
        let authority = authority.transpose()?;
        for warning in rules.warnings() {
            tracing::warn!("{warning}");
        }
        let deny = config.cert_deny_list.clone();
        Ok(Self { rules, authority, deny, began: Instant::now(), next_look: AtomicU64::new(0) })
    }

    /// Decides about a node now.
    pub(super) fn run(&self, question: &Question) -> Result<(HelperAnswer, RunNotes), (HelperError, RunNotes)> {
        self.look_at_authority();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        match self.answer(question, i64::try_from(unix).unwrap_or(i64::MAX)) {
            Ok(answer) => Ok((answer, RunNotes::default())),
            Err(error) => Err((error, RunNotes::default())),
        }
    }

    /// What becomes of a node at `now`, Unix seconds.
    fn answer(&self, question: &Question, now: i64) -> Result<HelperAnswer, HelperError> {
        let facts = if self.rules.needs_facts { facts(&question.inventory) } else { empty() };
        let claims = question.jwt.as_ref().filter(|_| self.rules.needs_claims).map_or_else(empty, claims);
        let view = View {
            identity: &question.identity,
            ssldir: question.csr.as_ref().map(|(reply, _)| reply.ssldir.as_str()),
            facts: &facts,
            claims: &claims,
        };
        let put_off = |msg: String| HelperAnswer { defer: true, msg, ..HelperAnswer::default() };
        let (rule, given) = match self.rules.judge(&view) {
            Verdict::Provision(rule, given) => {
                tracing::debug!(node = view.identity, "{rule} decides");
                (rule, given)
            }
            Verdict::Defer(msg) => return Ok(put_off(msg)),
            Verdict::Shutdown(msg) => return Ok(HelperAnswer { shutdown: true, msg, ..HelperAnswer::default() }),
            Verdict::Deny(reason) => return Ok(HelperAnswer { denied: Some(reason), ..HelperAnswer::default() }),
        };
        let missing = |missing| put_off(decide::lacks(rule, &missing));
        let configuration = match given.configuration(&view) {
            Ok(configuration) => configuration,
            Err(lack) => return Ok(missing(lack)),
        };
        let mut answer = HelperAnswer {
            configuration,
            action_policies: given.action_policies.clone(),
            opa_policies: given.opa_policies.clone(),
            built_in: true,
            ..HelperAnswer::default()
        };
        if let (Some(store), Some((_, request))) = (&self.authority, &question.csr) {
            let dns_names = match given.dns_names(&view) {
                Ok(names) => names,
                Err(lack) => return Ok(missing(lack)),
            };
            // One authority for both texts: a replacement may come in between.
            let authority = store.current();
            let validity = given.certificate.validity;
            let deny = self.deny.clone();
            let policy = SigningPolicy { validity, dns_names, deny, ..SigningPolicy::new(&*question.identity) };
            answer.certificate = sign(&authority, request, &policy, now)?;
            answer.ca = authority.certificate_pem().to_owned();
        }
        Ok(answer)
    }

    /// Takes over an authority whose files were replaced, looking at most once in [`LOOK`].
    fn look_at_authority(&self) {
        let Some(store) = &self.authority else { return };
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_look.load(Ordering::Relaxed);
        let mine = elapsed >= due
            && self.next_look.compare_exchange(due, elapsed + LOOK, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !mine {
            return;
        }
        let directory = store.directory().display();
        match store.refresh() {
            Ok(false) => {}
            Ok(true) => {
                let authority = store.current();
                let subject = &authority.facts().subject;
                tracing::warn!("the authority in {directory} was replaced, {subject} signs from now on");
            }
            Err(error) => {
                tracing::warn!(
                    "the authority in {directory} was changed but cannot be used, the one before stays in force: {error}"
                );
            }
        }
    }
}

fn sign(
    authority: &CertificateAuthority,
    request: &CheckedCsr,
    policy: &SigningPolicy,
    now: i64,
) -> Result<String, HelperError> {
    let signed = authority.sign_request(&request.facts, policy, now);
    signed.map(|certificate| certificate.pem).map_err(|error| HelperError::Authority(error.to_string()))
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// The facts of an inventory; an object whatever the node sent.
fn facts(inventory: &str) -> Value {
    #[derive(serde::Deserialize)]
    struct Inventory {
        #[serde(default)]
        facts: Value,
    }
    match serde_json::from_str(inventory) {
        Ok(Inventory { facts: facts @ Value::Object(_) }) => facts,
        _ => empty(),
    }
}

/// The claims without the token's secrets.
fn claims(token: &ProvisioningClaims) -> Value {
    match serde_json::to_value(token) {
        Ok(Value::Object(mut claims)) => {
            claims.retain(|name, _| name != "cht" && name != "chpwd");
            claims.insert("ou".to_owned(), Value::from(token.organization()));
            Value::Object(claims)
        }
        _ => empty(),
    }
}

#[cfg(test)]
mod tests;
