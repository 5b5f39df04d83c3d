//! Values with variables, `{{identity}}`, `{{facts.dc}}`.
//!
//! A variable that has no value puts the node off with that reason: a setting with a hole in it would be worse than none.

use choria_filter::facts;
use choria_protocol::json::float_text;
use serde_json::{Number, Value};

/// Claims that are about the node's place in the fleet. The secrets of a token (`cht`, `chpwd`) are not among them.
const CLAIMS: [&str; 20] = [
    "extensions",
    "ou",
    "iss",
    "sub",
    "jti",
    "exp",
    "nbf",
    "iat",
    "chs",
    "chu",
    "chsrv",
    "chpd",
    "chrd",
    "chf",
    "chusr",
    "v2",
    "update",
    "purpose",
    "public_key",
    "issexp",
];

/// What can be said about a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'n> {
    pub(super) identity: &'n str,
    /// Where it keeps its certificates; with `features.pki`.
    pub(super) ssldir: Option<&'n str>,
    /// An object; empty when no rule asks for facts.
    pub(super) facts: &'n Value,
    /// Claims of its token without secrets; an object, empty when no rule asks for them.
    pub(super) claims: &'n Value,
}

/// A text with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// What a variable stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Variable {
    Identity,
    SslDir,
    /// A path into the facts, as fact filters have it.
    Fact(String),
    /// A path into the claims.
    Claim(String),
}

/// A variable that has no value for a node, with what is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) variable: String,
    pub(super) problem: &'static str,
}

impl Template {
    /// Reads a text. Blanks inside the braces do not matter; `}}` alone is text.
    ///
    /// # Errors
    /// What is wrong, naming the variable.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, behind)) = after.split_once("}}") else {
                return Err(format!("{{{{ is not closed in {text:?}"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Variable(Variable::parse(name.trim())?));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// A text that is taken as it is.
    pub(super) fn fixed(text: &str) -> Self {
        Self { parts: vec![Part::Text(text.to_owned())] }
    }

    /// Its variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The text, when it has no variables.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for one node.
    ///
    /// # Errors
    /// The first variable without a value.
    pub(super) fn fill(&self, node: &View<'_>) -> Result<String, Missing> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(variable) => variable.append(node, &mut text)?,
            }
        }
        Ok(text)
    }
}

impl Variable {
    fn parse(name: &str) -> Result<Self, String> {
        match name.split_once('.') {
            None if name == "identity" => Ok(Self::Identity),
            None if name == "ssldir" => Ok(Self::SslDir),
            Some(("facts", path)) if !path.is_empty() => Ok(Self::Fact(path.to_owned())),
            Some(("jwt", path)) if !path.is_empty() => check_claim(path).map(|()| Self::Claim(path.to_owned())),
            _ => Err(format!(
                "unknown variable {{{{{name}}}}}, known are identity, ssldir, facts.NAME such as facts.os.family, and jwt.NAME such as jwt.extensions.tenant"
            )),
        }
    }

    fn append(&self, node: &View<'_>, text: &mut String) -> Result<(), Missing> {
        let missing = |problem| Missing { variable: self.name(), problem };
        let value = match self {
            Self::Identity => {
                text.push_str(node.identity);
                return Ok(());
            }
            Self::SslDir => {
                text.push_str(node.ssldir.filter(|dir| !dir.is_empty()).ok_or_else(|| missing("the node named none"))?);
                return Ok(());
            }
            Self::Fact(path) => facts::lookup(node.facts, path),
            Self::Claim(path) => facts::lookup(node.claims, path),
        };
        match value.as_deref() {
            None | Some(Value::Null) => Err(missing("the node has none")),
            Some(Value::String(value)) if value.is_empty() => Err(missing("it is empty")),
            Some(Value::String(value)) => {
                text.push_str(value);
                Ok(())
            }
            Some(Value::Bool(value)) => {
                text.push_str(if *value { "true" } else { "false" });
                Ok(())
            }
            Some(Value::Number(value)) => {
                text.push_str(&number(value));
                Ok(())
            }
            Some(Value::Array(_)) => Err(missing("it is a list")),
            Some(Value::Object(_)) => Err(missing("it is a group of values")),
        }
    }

    /// As it is written between the braces.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Identity => "identity".to_owned(),
            Self::SslDir => "ssldir".to_owned(),
            Self::Fact(path) => format!("facts.{path}"),
            Self::Claim(path) => format!("jwt.{path}"),
        }
    }
}

/// Whole numbers as they are, others in the form that Choria writes them.
fn number(value: &Number) -> String {
    match value.as_f64() {
        Some(float) if !value.is_i64() && !value.is_u64() => float_text(float),
        _ => value.to_string(),
    }
}

/// Whether a path begins with a claim that tokens have and that is no secret.
///
/// # Errors
/// What is wrong.
pub(super) fn check_claim(path: &str) -> Result<(), String> {
    let head = path.split(['.', '|']).next().unwrap_or_default();
    match head {
        "cht" | "chpwd" => Err(format!("the claim {head} is a secret and cannot be used in rules")),
        _ if CLAIMS.contains(&head) => Ok(()),
        _ => Err(format!("tokens have no claim {head}; free ones are below extensions, such as extensions.tenant")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fill(text: &str, facts: &Value, claims: &Value) -> Result<String, Missing> {
        let view = View { identity: "n1.example.net", ssldir: Some("/etc/choria/ssl"), facts, claims };
        Template::parse(text).unwrap().fill(&view)
    }

    #[test]
    fn variables_become_values() {
        let facts = json!({"dc": "ams", "n": 4, "f": 1.5, "t": true, "os": {"family": "Debian"}, "l": ["a", "b"]});
        let claims = json!({"extensions": {"tenant": "t9"}, "ou": "choria", "chpd": true});
        for (text, expected) in [
            ("", ""),
            ("plain }} text { x }", "plain }} text { x }"),
            ("{{identity}}", "n1.example.net"),
            ("{{ ssldir }}/x.pem", "/etc/choria/ssl/x.pem"),
            ("a-{{facts.dc}}-{{facts.n}}-{{facts.f}}-{{facts.t}}", "a-ams-4-1.5-true"),
            ("{{facts.os.family}}{{facts.l.1}}{{facts.l.#}}", "Debianb2"),
            ("{{jwt.extensions.tenant}}/{{jwt.ou}}/{{jwt.chpd}}", "t9/choria/true"),
        ] {
            assert_eq!(fill(text, &facts, &claims).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_value_is_told_and_never_an_empty_text() {
        let facts = json!({"empty": "", "null": null, "list": [1], "map": {"a": 1}});
        for (name, problem) in [
            ("facts.absent", "the node has none"),
            ("facts.null", "the node has none"),
            ("facts.empty", "it is empty"),
            ("facts.list", "it is a list"),
            ("facts.map", "it is a group of values"),
            ("jwt.extensions.tenant", "the node has none"),
        ] {
            let missing = fill(&format!("x{{{{{name}}}}}y"), &facts, &json!({})).unwrap_err();
            assert_eq!(missing, Missing { variable: name.to_owned(), problem });
        }
        let nowhere = View { identity: "n", ssldir: Some(""), facts: &json!({}), claims: &json!({}) };
        assert!(Template::parse("{{ssldir}}").unwrap().fill(&nowhere).is_err());
    }

    #[test]
    fn slips_are_errors() {
        for (text, expected) in [
            ("{{identity", "is not closed"),
            ("{{fact.dc}}", "unknown variable {{fact.dc}}"),
            ("{{}}", "unknown variable"),
            ("{{facts.}}", "unknown variable"),
            ("{{jwt.tenant}}", "tokens have no claim tenant"),
            ("{{jwt.cht}}", "is a secret"),
            ("{{jwt.chpwd}}", "is a secret"),
            ("{{jwt.@this}}", "tokens have no claim"),
            ("{{jwt.*}}", "tokens have no claim"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r"[a-z.{}| @#*\PC]{0,40}") {
            let (facts, claims) = (json!({"a": 1}), json!({"ou": "x"}));
            let view = View { identity: "n", ssldir: None, facts: &facts, claims: &claims };
            if let Ok(template) = Template::parse(&text) {
                let filled = template.fill(&view);
                if let Some(literal) = template.literal() {
                    prop_assert_eq!(filled.as_deref(), Ok(literal));
                    prop_assert_eq!(literal, text.as_str());
                }
            }
        }
    }
}
