//! Action policies: files of rules, one per agent (spec 03 §8.2).
//!
//! ```text
//! policy default deny
//! allow   choria=ops.mcollective admins   status restart   os.family=RedHat   *
//! verdict callers                         actions          facts              classes
//! ```
//! Columns are separated by tabs, words in them by blanks. The first rule that matches decides.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use choria_filter::regex::{go_regex, strip_slashes};
use choria_filter::{NodeView, matches};
use choria_protocol::filter::{Filter, ParseError, is_regex, parse_fact};

use crate::agent::Call;
use crate::authz::{Authorizer, Decision};

/// Largest policy or groups file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Settings of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionPolicySettings {
    /// Directory of the policies, `<config dir>/policies`.
    pub directory: PathBuf,
    /// `plugin.actionpolicy.allow_unconfigured`: the verdict of a file whose rules do not match and that has no default line.
    /// Without any file everything is denied all the same.
    pub allow_unconfigured: bool,
    /// `plugin.actionpolicy.enable_default`: agents without a file use the default file.
    pub enable_default: bool,
    /// `plugin.actionpolicy.default_name`: name of the default file without its extension.
    pub default_name: String,
}

/// The provider. Files are read for every call, so that changes count at once.
#[derive(Debug, Clone)]
pub struct ActionPolicy {
    settings: ActionPolicySettings,
}

impl ActionPolicy {
    /// A provider with these settings.
    pub fn new(settings: ActionPolicySettings) -> Self {
        Self { settings }
    }

    fn path_of(&self, agent: &str) -> Option<PathBuf> {
        // Agents come from a request; only plain names can be files here.
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != ".." && name != ".";
        let own = Some(agent).filter(|agent| plain(agent));
        let default =
            Some(self.settings.default_name.as_str()).filter(|name| self.settings.enable_default && plain(name));
        [own, default]
            .into_iter()
            .flatten()
            .map(|name| self.settings.directory.join(format!("{name}.policy")))
            .find(|path| path.exists())
    }

    fn judge(&self, call: &Call, node: &NodeView<'_>) -> Result<Verdict, String> {
        let agent = &call.context.agent;
        let id = &call.context.request_id;
        let path =
            self.path_of(agent).ok_or_else(|| format!("Could not lookup policy files: no policy found for {agent}"))?;
        let failed = |error: io::Error| format!("Authorizing request {id} failed: {}: {error}", path.display());
        let policy = PolicyFile::parse(&read(&path).map_err(failed)?, self.settings.allow_unconfigured);
        for warning in &policy.warnings {
            tracing::warn!("{}: {warning}", path.display());
        }
        let groups_path = self.settings.directory.join("groups");
        let groups = match read(&groups_path) {
            Ok(text) => GroupsFile::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => GroupsFile::default(),
            Err(error) => return Err(format!("Authorizing request {id} failed: {}: {error}", groups_path.display())),
        };
        let verdict = policy
            .judge(&call.context.caller, &call.action, &groups, node)
            .map_err(|error| format!("Authorizing request {id} failed: {error}"))?;
        Ok(Verdict { path, ..verdict })
    }
}

impl Authorizer for ActionPolicy {
    fn authorize(&self, call: &Call, node: &NodeView<'_>) -> Decision {
        match self.judge(call, node) {
            Ok(Verdict { allow: true, .. }) => Decision::Allow,
            Ok(Verdict { explicit, path, .. }) => {
                let based = if explicit { "explicit 'deny'" } else { "default" };
                let id = &call.context.request_id;
                Decision::Deny(format!("Denying request {id}: Denying based on {based} policy in {}", path.display()))
            }
            Err(error) => Decision::Deny(error),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("{size} bytes, the limit is {MAX_FILE_BYTES}")));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

/// What a file says about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    allow: bool,
    /// By a rule, not by the default.
    explicit: bool,
    path: PathBuf,
}

/// A line that was skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Neither a rule nor a default.
    #[error("invalid policy line: {0}")]
    Invalid(String),
    /// `and`, `or`, `not`, `!` or parentheses.
    #[error("Compound policy statements are not supported, skipping line: {0}")]
    Compound(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    callers: String,
    actions: String,
    facts: String,
    classes: String,
}

/// A policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    allow_by_default: bool,
    rules: Vec<Rule>,
    /// Lines that were skipped.
    pub warnings: Vec<Warning>,
}

impl PolicyFile {
    /// Reads a file. Lines that are not understood are skipped and warned about.
    pub fn parse(text: &str, allow_unconfigured: bool) -> Self {
        let mut file = Self { allow_by_default: allow_unconfigured, rules: Vec::new(), warnings: Vec::new() };
        for line in text.lines() {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(word) = default_word(line) {
                file.allow_by_default = word == "allow";
                continue;
            }
            let columns: Vec<&str> = line.split('\t').filter(|column| !column.is_empty()).collect();
            let (allow, [callers, actions, facts, rest @ ..]) = (match columns.split_first() {
                Some((&"allow", columns)) => (true, columns),
                Some((&"deny", columns)) => (false, columns),
                _ => (false, &[][..]),
            }) else {
                file.warnings.push(Warning::Invalid(line.to_owned()));
                continue;
            };
            let classes = rest.first().copied().unwrap_or_default();
            if is_compound(facts) || is_compound(classes) {
                file.warnings.push(Warning::Compound(line.to_owned()));
                continue;
            }
            let [callers, actions, facts, classes] =
                [callers, actions, facts, &classes].map(|text| text.trim().to_owned());
            file.rules.push(Rule { allow, callers, actions, facts, classes });
        }
        file
    }

    /// The verdict on a call. An error denies: a rule for this caller and action that cannot be evaluated must not be passed by.
    fn judge(&self, caller: &str, action: &str, groups: &GroupsFile, node: &NodeView<'_>) -> Result<Verdict, String> {
        for rule in &self.rules {
            if rule.is_for_caller(caller, groups)
                && rule.is_for_action(action)
                && rule.facts_match(node)?
                && rule.classes_match(node)?
            {
                return Ok(Verdict { allow: rule.allow, explicit: true, path: PathBuf::new() });
            }
        }
        Ok(Verdict { allow: self.allow_by_default, explicit: false, path: PathBuf::new() })
    }

    /// Whether a caller may do an action on a node.
    ///
    /// # Errors
    /// A rule for them that cannot be evaluated: deny.
    pub fn allows(&self, caller: &str, action: &str, groups: &GroupsFile, node: &NodeView<'_>) -> Result<bool, String> {
        self.judge(caller, action, groups, node).map(|verdict| verdict.allow)
    }
}

/// The word of a `policy default WORD` line.
fn default_word(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let is_default = line.starts_with("policy") && words.next() == Some("policy") && words.next() == Some("default");
    let word = words.next()?;
    (is_default && words.next().is_none()).then_some(word)
}

fn is_compound(column: &str) -> bool {
    column.split_whitespace().any(|word| matches!(word, "and" | "or" | "not") || word.starts_with('!') || word.contains(['(', ')']))
        // A regular expression may hold parentheses.
        && !column.split_whitespace().all(|word| is_regex(word) && word.len() > 1)
}

impl Rule {
    fn is_for_caller(&self, caller: &str, groups: &GroupsFile) -> bool {
        self.callers == "*"
            || self.callers.split_whitespace().any(|word| {
                if is_regex(word) && word.len() > 1 {
                    match go_regex(strip_slashes(word)) {
                        Ok(regex) => regex.is_match(caller),
                        Err(error) => {
                            tracing::warn!("caller in a policy never matches: {error}");
                            false
                        }
                    }
                } else {
                    word == caller || groups.has_member(word, caller)
                }
            })
    }

    fn is_for_action(&self, action: &str) -> bool {
        self.actions == "*" || self.actions.split_whitespace().any(|word| word == action)
    }

    fn facts_match(&self, node: &NodeView<'_>) -> Result<bool, String> {
        if self.facts == "*" {
            return Ok(true);
        }
        let mut filter = Filter::default();
        for word in self.facts.split_whitespace() {
            filter.add_fact(parse_fact(word).map_err(|error| error.to_string())?);
        }
        if filter.fact.is_empty() {
            return Err("empty fact policy found".to_owned());
        }
        matches(&filter, node).map_err(|error| error.to_string())
    }

    fn classes_match(&self, node: &NodeView<'_>) -> Result<bool, String> {
        if self.classes == "*" {
            return Ok(true);
        }
        let mut filter = Filter::default();
        for word in self.classes.split_whitespace() {
            if matches!(parse_fact(word), Ok(_) | Err(ParseError::RegexWithOperator { .. })) {
                return Err("fact found where class was expected".to_owned());
            }
            filter.add_class(word);
        }
        if filter.cf_class.is_empty() {
            return Err("empty classes policy found".to_owned());
        }
        matches(&filter, node).map_err(|error| error.to_string())
    }
}

/// Groups of callers: `name member member ...`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupsFile(HashMap<String, Vec<String>>);

impl GroupsFile {
    /// Reads a file. Lines whose name is not made of word characters, `.` and `-` are skipped.
    pub fn parse(text: &str) -> Self {
        let mut groups: HashMap<String, Vec<String>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace().map(str::to_owned);
            let Some(name) = words.next() else { continue };
            if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')) {
                groups.insert(name, words.collect());
            }
        }
        Self(groups)
    }

    fn has_member(&self, group: &str, caller: &str) -> bool {
        self.0.get(group).is_some_and(|members| members.iter().any(|member| member == caller))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn allows(policy: &str, groups: &str, caller: &str, action: &str) -> Result<bool, String> {
        let facts = json!({"os": {"family": "RedHat"}, "count": 5});
        let classes = ["role::web", "Alpha::Beta"].map(str::to_owned);
        let node = NodeView::new("n1", &[], &classes, &facts);
        PolicyFile::parse(policy, false).allows(caller, action, &GroupsFile::parse(groups), &node)
    }

    const CALLER: &str = "choria=a.mcollective";

    #[test]
    fn documented_policies() {
        for (policy, groups, expected) in [
            ("policy default deny\nallow\tchoria=a.mcollective\tstatus restart\t*\t*", "", Ok(true)),
            ("deny\t*\tstatus\t*\t*\nallow\t*\t*\t*\t*", "", Ok(false)),
            ("allow\t/^choria=a/\t*\t*\t*", "", Ok(true)),
            ("allow\tadmins\t*\t*\t*", "admins choria=a.mcollective", Ok(true)),
            ("allow\tadmins\t*\t*\t*", "# admins choria=a.mcollective\nadm!ns choria=a.mcollective", Ok(false)),
            ("allow\t*\t*\tos=linux and x=y\t*", "", Ok(false)),
            ("allow\t*\t*\t*", "", Err("empty classes policy found".to_owned())),
            ("allow *\t*\t*\t*", "", Ok(false)),
            ("allow\t*\t*\tos.family=redhat count>4\trole::web", "", Ok(true)),
            ("allow\t*\t*\tos.family=debian\t*", "", Ok(false)),
            ("allow\t*\t*\t*\tcount=5", "", Err("fact found where class was expected".to_owned())),
            ("allow\t*\t*\t*\t/^(role|x)::/", "", Ok(true)),
            ("allow\t*\t*\t*\talpha::beta", "", Ok(true)),
            ("", "", Ok(false)),
        ] {
            assert_eq!(allows(policy, groups, CALLER, "status"), expected, "{policy:?}");
        }
        assert!(allows("allow\t*\t*\tnonsense\t*", "", CALLER, "status").is_err(), "facts that cannot be parsed");
        assert!(allows("allow\t*\t*\tcount>x\t*", "", CALLER, "status").is_err(), "facts that cannot be compared");
    }

    #[test]
    fn skipped_lines_are_told() {
        let file = PolicyFile::parse("nonsense\nallow\t*\t*\tnot x=1\t*\n# fine\n\npolicy default allow\n", false);
        assert_eq!(
            file.warnings,
            [Warning::Invalid("nonsense".to_owned()), Warning::Compound("allow\t*\t*\tnot x=1\t*".to_owned())]
        );
        assert!(file.allow_by_default);
    }

    proptest! {
        #[test]
        fn no_policy_panics(policy in "(allow|deny|policy default|[a-z])[ \ta-z*/=!()\n]{0,60}", groups in "[a-z #\n=]{0,30}") {
            let _ = allows(&policy, &groups, CALLER, "status");
        }

        #[test]
        fn what_no_rule_names_is_denied(caller in "[a-z=.]{1,12}", action in "[a-z]{1,6}") {
            prop_assume!(action != "status");
            prop_assert_eq!(allows("policy default deny\nallow\t*\tstatus\t*\t*", "", &caller, &action), Ok(false));
        }
    }
}
