//! `$SYS.REQ.USER.INFO`, in every account.

use std::time::SystemTime;

use nats_proto::encode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::auth::{Grant, Permissions, SubjectRules};
use crate::route::{Message, Router, Run, bits};

/// Tells a connection who it is and what it may do.
pub(super) const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// One direction of the permissions in an answer; empty lists are left out.
#[derive(Debug, Serialize)]
struct Rules<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<&'a [String]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    deny: &'a [String],
}

impl<'a> From<&'a SubjectRules> for Rules<'a> {
    fn from(rules: &'a SubjectRules) -> Self {
        Self { allow: rules.allow.as_deref(), deny: &rules.deny }
    }
}

/// The `data` of the answer.
fn user_data(grant: &Grant, now: SystemTime) -> Value {
    let permissions = &grant.permissions;
    let mut data = json!({
        "user": grant.user.as_deref().unwrap_or_default(),
        "account": grant.account,
        "account_name": grant.account,
    });
    if *permissions != Permissions::unlimited() {
        data["permissions"] = json!({
            "publish": Rules::from(&permissions.publish),
            "subscribe": Rules::from(&permissions.subscribe),
        });
    }
    if let Some(budget) = permissions.responses {
        data["permissions"]["responses"] = json!({
            "max": budget.max.map_or(-1, i64::from),
            "ttl": budget.ttl.map_or(-1, |ttl| ttl.as_nanos() as i64),
        });
    }
    if let Some(left) = grant.expires_at.and_then(|at| at.duration_since(now).ok()) {
        data["expires"] = json!(left.as_nanos() as u64);
    }
    data
}

impl Router<'_, '_> {
    /// Answers `$SYS.REQ.USER.INFO` of a connection in its own account.
    pub(super) fn user_info(&mut self, account: u32, run: &Run<'_>, mask: u64) -> u64 {
        let shared = self.shared;
        let Some(grant) = self.source.and_then(|source| source.rare.lock().grant.clone()) else {
            return 0;
        };
        let now = SystemTime::now();
        let answer = json!({ "server": shared.server_object(now), "data": user_data(&grant, now) });
        let content = answer.to_string().into_bytes();
        let mut tail = Vec::with_capacity(content.len() + 16);
        encode::message_tail(&mut tail, None, None, &content);
        let message = Message { reply: None, header_len: 0, content: &content, tail: &tail };
        // The answer comes from the broker: `echo:false` does not hold it back.
        let echo = std::mem::replace(&mut self.echo, true);
        for bit in bits(mask) {
            if let Some(reply) = run.messages[bit].reply {
                let run = Run { subject: reply, messages: std::slice::from_ref(&message) };
                self.local(account, &mut None, &run, 1);
            }
        }
        self.echo = echo;
        mask
    }
}
