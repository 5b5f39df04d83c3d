//! `--filter-replies`: which replies are shown and summarised (spec 05 §6.6).

use std::cell::RefCell;

use choria_filter::expr::{Budget, Host, Program, RunError, Type, Value};
use choria_filter::{common_function, common_scope, facts};

use crate::replies::RpcReply;

/// What looking into a reply costs an expression.
const LOOKUP_COST: usize = 200;

/// Status codes by the names that expressions use.
const CODES: [(&str, u8); 6] =
    [("ok", 0), ("aborted", 1), ("unknown_action", 2), ("missing_data", 3), ("invalid_data", 4), ("unknown_error", 5)];

/// An expression that is no reply filter. It is told before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not use the reply filter {expression:?}: {reason}")]
pub struct ReplyFilterError {
    /// The expression.
    pub expression: String,
    /// What is wrong.
    pub reason: String,
}

/// A compiled reply filter.
#[derive(Debug, Clone)]
pub struct ReplyFilter {
    program: Program,
}

impl ReplyFilter {
    /// Compiles an expression over one reply: `ok() && data("version") == "1.2"`.
    ///
    /// # Errors
    /// When it does not compile, does not yield a boolean, or calls a function that does not exist.
    pub fn compile(expression: &str) -> Result<Self, ReplyFilterError> {
        let refuse = |reason: String| ReplyFilterError { expression: expression.to_owned(), reason };
        let mut scope = common_scope()
            .variable("msg", Type::Text)
            .variable("code", Type::Int)
            .function("data", &[Type::Text], Type::Any)
            .function("sender", &[], Type::Text)
            .function("time", &[], Type::Any);
        for (name, _) in CODES {
            scope = scope.function(name, &[], Type::Bool);
        }
        let program = Program::compile(expression, &scope).map_err(|error| refuse(error.to_string()))?;
        // Functions that nobody knows only show up when they are called.
        let trial = Trial::default();
        let _ = program.is_true(&trial);
        match trial.unknown.into_inner() {
            Some(name) => Err(refuse(format!("there is no function {name}()"))),
            None => Ok(Self { program }),
        }
    }

    /// Whether a reply is kept. One on which the expression fails is not.
    pub fn keeps(&self, reply: &RpcReply) -> bool {
        self.program.is_true(&OneReply(reply)).unwrap_or_else(|error| {
            tracing::debug!(sender = %reply.sender, "the reply filter failed: {error}");
            false
        })
    }
}

/// What an expression sees of a reply.
struct OneReply<'r>(&'r RpcReply);

impl Host for OneReply<'_> {
    fn variable(&self, name: &str) -> Option<Value> {
        match name {
            "msg" => Some(Value::text(self.0.message.as_str())),
            "code" => Some(Value::Int(i64::from(self.0.code))),
            _ => None,
        }
    }

    fn call(&self, name: &str, arguments: &[Value], budget: &Budget) -> Option<Result<Value, RunError>> {
        if let Some((_, code)) = CODES.iter().find(|(known, _)| *known == name) {
            return Some(Ok(Value::Bool(self.0.code == *code)));
        }
        Some(match (name, arguments) {
            ("sender", []) => Ok(Value::text(self.0.sender.as_str())),
            ("time", []) => Ok(jiff::Timestamp::from_second(self.0.time).map_or(Value::Nil, Value::Time)),
            ("data", [Value::Text(path)]) => self.data(path, budget),
            ("sender" | "time" | "data", _) => Err(RunError::new(format!("{name}() does not take these arguments"))),
            _ => return common_function(name, arguments, budget),
        })
    }
}

impl OneReply<'_> {
    fn data(&self, path: &str, budget: &Budget) -> Result<Value, RunError> {
        budget.spend(LOOKUP_COST)?;
        match facts::lookup(&self.0.data, path) {
            Some(value) => Value::from_json(&value, false, budget),
            None => Ok(Value::Nil),
        }
    }
}

/// Notes the first function that does not exist.
#[derive(Default)]
struct Trial {
    unknown: RefCell<Option<String>>,
}

impl Host for Trial {
    fn variable(&self, _: &str) -> Option<Value> {
        None
    }

    fn call(&self, name: &str, _: &[Value], _: &Budget) -> Option<Result<Value, RunError>> {
        let known = CODES.iter().any(|(code, _)| *code == name)
            || ["sender", "time", "data", "include", "semver"].contains(&name);
        if !known {
            self.unknown.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        known.then_some(Ok(Value::Nil))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_protocol::v1;
    use serde_json::json;

    /// The five replies of `golden/cli/filter-replies.jsonl`.
    fn replies() -> Vec<RpcReply> {
        let nodes = [
            ("web1.acme.test", 0),
            ("web2.acme.test", 0),
            ("web3.acme.test", 1),
            ("db1.acme.test", 3),
            ("edge1.example.net", 5),
        ];
        let reply = |(sender, code): (&str, u8)| RpcReply {
            sender: sender.to_owned(),
            action: "mixed".to_owned(),
            code,
            message: if code == 0 { "OK".to_owned() } else { format!("failed on {sender}") },
            data: json!({"v": sender[..3], "who": sender}),
            time: 1_795_000_000,
            envelope: v1::Reply {
                message: String::new(),
                envelope: v1::ReplyEnvelope {
                    request_id: "0".repeat(32),
                    sender_id: sender.to_owned(),
                    agent: "labtypes".to_owned(),
                    time: 1_795_000_000,
                },
            },
        };
        nodes.map(reply).to_vec()
    }

    /// Every row of `golden/cli/filter-replies.jsonl`. Those that keep nothing because they do not compile are errors here.
    #[test]
    fn golden_filter_replies() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/cli/filter-replies.jsonl");
        let refused = ["1", "bad((", "IsOK()", "Data(\"v\")"];
        let mut rows = 0;
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let expression = row["expr"].as_str().unwrap();
            let compiled = ReplyFilter::compile(expression);
            assert_eq!(compiled.is_err(), refused.contains(&expression), "{expression}: {compiled:?}");
            if let Ok(filter) = compiled {
                let mut kept: Vec<String> =
                    replies().into_iter().filter(|reply| filter.keeps(reply)).map(|reply| reply.sender).collect();
                kept.sort_unstable();
                assert_eq!(json!(kept), row["kept"], "{expression}");
            }
            rows += 1;
        }
        assert_eq!(rows, 27);
    }

    #[test]
    fn numbers_are_found_whatever_they_look_like() {
        let mut reply = replies().remove(0);
        reply.data = json!({"ports": [80, 443]});
        assert!(ReplyFilter::compile("include(data('ports'), 80)").unwrap().keeps(&reply));
        assert!(!ReplyFilter::compile("include(data('ports'), 81)").unwrap().keeps(&reply));
    }
}
