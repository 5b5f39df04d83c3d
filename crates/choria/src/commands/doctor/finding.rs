//! What a check found.

use std::fmt::Display;

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Works, but deserves a look.
    Warning,
    /// Does not work, or must not stay as it is.
    Failed,
    /// Was not looked at; the detail says why.
    Skipped,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable name of the check; several findings of one run may have it, about different subjects.
    pub id: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was looked at: a file, a host, a subject.
    pub subject: String,
    /// What was found there.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// All findings of one run, in the order of the checks.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    /// Moments that cannot be in the future when the clock is right: what they are of, Unix seconds.
    pub(super) past: Vec<(String, i64)>,
}

impl Findings {
    pub(super) fn ok(&mut self, id: &'static str, subject: impl Display, detail: impl Display) {
        self.add(id, Status::Ok, subject, detail, None);
    }

    pub(super) fn warning(
        &mut self,
        id: &'static str,
        subject: impl Display,
        detail: impl Display,
        advice: impl Into<String>,
    ) {
        self.add(id, Status::Warning, subject, detail, Some(advice.into()));
    }

    pub(super) fn failed(
        &mut self,
        id: &'static str,
        subject: impl Display,
        detail: impl Display,
        advice: impl Into<String>,
    ) {
        self.add(id, Status::Failed, subject, detail, Some(advice.into()));
    }

    /// What could not be looked at, and because of what.
    pub(super) fn skipped(&mut self, ids: &[&'static str], because: impl Display) {
        for id in ids {
            self.add(id, Status::Skipped, "", &because, None);
        }
    }

    fn add(
        &mut self,
        id: &'static str,
        status: Status,
        subject: impl Display,
        detail: impl Display,
        advice: Option<String>,
    ) {
        let advice = advice.filter(|text| !text.is_empty());
        self.list.push(Finding { id, status, subject: subject.to_string(), detail: detail.to_string(), advice });
    }

    /// Whether a check failed whose name begins with one of these words.
    pub(super) fn any_failed(&self, prefixes: &[&str]) -> bool {
        let named = |finding: &Finding| prefixes.iter().any(|prefix| finding.id.starts_with(prefix));
        self.list.iter().any(|finding| finding.status == Status::Failed && named(finding))
    }

    /// How many checks ended like this.
    pub(crate) fn count(&self, status: Status) -> usize {
        self.list.iter().filter(|finding| finding.status == status).count()
    }

    /// The findings; with `quiet` only failures and warnings.
    pub(crate) fn shown(&self, quiet: bool) -> Vec<&Finding> {
        let deserves = |status| !quiet || matches!(status, Status::Failed | Status::Warning);
        self.list.iter().filter(|finding| deserves(finding.status)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_count_as_failures() {
        let mut findings = Findings::default();
        findings.ok("key.file", "k.pem", "RSA 2048");
        findings.warning("key.permissions", "k.pem", "mode 0640", "");
        findings.skipped(&["broker.tls", "broker.connect"], "no connection");
        assert!(!findings.any_failed(&["key.", "broker."]));
        findings.failed("key.match", "k.pem", "other key", "use the right one");
        assert!(findings.any_failed(&["certificate.", "key."]) && !findings.any_failed(&["certificate."]));
        assert_eq!((findings.count(Status::Ok), findings.count(Status::Skipped)), (1, 2));
        assert_eq!(findings.shown(false)[1].advice, None, "no advice is none");
        let shown: Vec<&str> = findings.shown(true).iter().map(|finding| finding.id).collect();
        assert_eq!(shown, ["key.permissions", "key.match"]);
    }
}
