//! Accounts of tokens in the broker's words.

use std::time::Duration;

use nats_broker::{
    AccountConfig, Export, Import, LatencySampling, MappingTarget, Permissions, ResponseBudget, ResponseKind,
    ServiceExport, ServiceImport, ServiceLatency, StreamExport, StreamImport, SubjectMapping, SubjectRules,
};
use nats_proto::subject;

use super::claims::{
    ActivationClaims, ExportClaim, ExportKind, ImportClaim, PermissionClaims, Sampling, SamplingWord, SubjectClaims,
};
use super::jwt::{self, Claims};
use super::{Account, Operator, now};

impl Operator {
    /// All accounts. `warnings` gets what is left out of them.
    pub(crate) fn accounts(&self, warnings: &mut Vec<String>) -> Vec<AccountConfig> {
        self.accounts.values().map(|account| self.account(account, warnings)).collect()
    }

    fn account(&self, account: &Account, warnings: &mut Vec<String>) -> AccountConfig {
        let claims = &account.claims.nats;
        let limit = |limit: Option<i64>| limit.and_then(|limit| usize::try_from(limit).ok());
        AccountConfig {
            name: account.claims.sub.clone(),
            exports: claims.exports.iter().map(|export| self.export(account, export)).collect(),
            imports: claims
                .imports
                .iter()
                .filter(|import| self.may_import(account, import, warnings))
                .map(import)
                .collect(),
            max_connections: limit(claims.limits.conn),
            max_subscriptions: limit(claims.limits.subs),
            max_payload: limit(claims.limits.payload),
            mappings: claims
                .mappings
                .iter()
                .map(|(source, targets)| SubjectMapping {
                    source: source.clone(),
                    targets: targets
                        .iter()
                        .filter(|target| target.cluster.is_empty())
                        .map(|target| MappingTarget {
                            subject: target.subject.clone(),
                            weight: if target.weight == 0 { 100 } else { target.weight },
                        })
                        .collect(),
                })
                .collect(),
        }
    }

    /// Exports with `account_token_position` are imported under the importer's own key only.
    fn may_import(&self, importer: &Account, import: &ImportClaim, warnings: &mut Vec<String>) -> bool {
        let Some(exporter) = self.accounts.get(&import.account) else { return true };
        let exports = exporter.claims.nats.exports.iter().filter(|export| {
            export.kind == import.kind
                && export.account_token_position > 0
                && subject::is_subset(remote(import), &export.subject)
        });
        for export in exports {
            let token = subject::tokens(remote(import)).nth(export.account_token_position - 1);
            if token != Some(importer.claims.sub.as_str()) {
                let (name, from) = (&importer.claims.sub, &import.account);
                let subject = &import.subject;
                warnings
                    .push(format!("account {name} imports {subject:?} of {from} without its own key in it: left out"));
                return false;
            }
        }
        true
    }

    fn export(&self, exporter: &Account, export: &ExportClaim) -> Export {
        let accounts = export.token_req.then(|| self.activated(exporter, export));
        let subject = export.subject.clone();
        if export.kind == ExportKind::Stream {
            return StreamExport { accounts, ..StreamExport::new(subject) }.into();
        }
        let usual = ServiceExport::new(subject);
        ServiceExport {
            accounts,
            response: match export.response_type.to_ascii_lowercase().as_str() {
                "stream" => ResponseKind::Stream,
                "chunked" => ResponseKind::Chunked,
                _ => ResponseKind::Singleton,
            },
            response_threshold: match export.response_threshold {
                0 => usual.response_threshold,
                nanos => Duration::from_nanos(nanos),
            },
            latency: export.service_latency.as_ref().map(|latency| ServiceLatency {
                subject: latency.results.clone(),
                sampling: match &latency.sampling {
                    // Zero is how the older form writes "by headers".
                    Sampling::Percent(0) | Sampling::Word(SamplingWord::Headers) => LatencySampling::Headers,
                    Sampling::Percent(percent) => LatencySampling::Percent(*percent),
                },
            }),
            ..usual
        }
        .into()
    }

    /// Accounts that import a private export with a token of the exporter.
    fn activated(&self, exporter: &Account, export: &ExportClaim) -> Vec<String> {
        let is_activated = |importer: &Account, import: &ImportClaim| {
            let Ok(token) = jwt::read::<ActivationClaims>(&import.token, "activation") else { return false };
            import.account == exporter.claims.sub
                && import.kind == export.kind
                && is_activation(&token, importer, exporter, export)
                && subject::is_subset(remote(import), &token.nats.subject)
        };
        let importers = self
            .accounts
            .values()
            .filter(|importer| importer.claims.nats.imports.iter().any(|import| is_activated(importer, import)));
        importers.map(|importer| importer.claims.sub.clone()).collect()
    }
}

fn is_activation(
    token: &Claims<ActivationClaims>,
    importer: &Account,
    exporter: &Account,
    export: &ExportClaim,
) -> bool {
    let is_issued = exporter.issuers.contains_key(&token.iss)
        && (token.nats.issuer_account.is_empty() || token.nats.issuer_account == exporter.claims.sub);
    let revoked = [importer.claims.sub.as_str(), "*"];
    let is_revoked = revoked.iter().filter_map(|key| export.revocations.get(*key)).any(|until| token.iat <= *until);
    is_issued
        && !is_revoked
        && token.sub == importer.claims.sub
        && token.nats.kind == Some(export.kind)
        && token.is_valid_at(now())
}

/// The subject in the exporting account.
fn remote(import: &ImportClaim) -> &str {
    let is_old_service = import.kind == ExportKind::Service && import.local_subject.is_empty() && !import.to.is_empty();
    if is_old_service { &import.to } else { &import.subject }
}

fn import(import: &ImportClaim) -> Import {
    let from = import.account.clone();
    let local = (!import.local_subject.is_empty()).then(|| import.local_subject.clone());
    match import.kind {
        ExportKind::Stream => {
            let prefixed =
                (!import.to.is_empty()).then(|| format!("{}.{}", import.to.trim_end_matches('.'), import.subject));
            StreamImport { to: local.or(prefixed), ..StreamImport::new(from, import.subject.clone()) }.into()
        }
        ExportKind::Service => {
            // The older form turns the two around: `subject` is the local one.
            let old = (!import.to.is_empty()).then(|| import.subject.clone());
            let to = local.or(old);
            ServiceImport { to, share: import.share, ..ServiceImport::new(from, remote(import)) }.into()
        }
    }
}

/// Permissions of a token. Empty lists are what tokens have when nothing was said.
pub(super) fn permissions(claims: &PermissionClaims) -> Permissions {
    let rules = |lists: &SubjectClaims| SubjectRules {
        allow: (!lists.allow.is_empty()).then(|| lists.allow.clone()),
        deny: lists.deny.clone(),
    };
    let responses = claims.resp.as_ref().map(|resp| ResponseBudget {
        max: match resp.max {
            0 => Some(1),
            max => u32::try_from(max).ok(),
        },
        ttl: match resp.ttl {
            0 => Some(Duration::from_secs(120)),
            nanos => u64::try_from(nanos).ok().map(Duration::from_nanos),
        },
    });
    Permissions { publish: rules(&claims.publish), subscribe: rules(&claims.subscribe), responses }
}
