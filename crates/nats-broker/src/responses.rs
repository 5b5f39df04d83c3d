//! Answers that a connection may give although its publish list does not name their subject (`allow_responses`).

use rustc_hash::FxHashMap;

use crate::auth::ResponseBudget;

/// Requests remembered per connection; more are not answerable without a publish right of their own.
const MOST_REQUESTS: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Budget {
    /// Answers left; `None` = no limit.
    left: Option<u32>,
    /// Last millisecond at which an answer is taken; `None` = no end.
    until: Option<u64>,
}

/// Open answers of one connection by reply subject.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    open: FxHashMap<Box<str>, Budget>,
}

impl Budgets {
    /// A message with this reply subject was delivered. Each delivery adds its answers: unlike in the reference,
    /// overlapping subscriptions do not use the budget up.
    pub(crate) fn delivered(&mut self, reply: &str, rule: ResponseBudget, now: u64) {
        if self.open.len() >= MOST_REQUESTS {
            self.open.retain(|_, budget| budget.until.is_none_or(|until| until >= now));
        }
        let until = rule.ttl.map(|ttl| now + ttl.as_millis() as u64);
        if let Some(budget) = self.open.get_mut(reply) {
            budget.left = budget.left.zip(rule.max).map(|(left, more)| left.saturating_add(more));
            budget.until = until;
        } else if self.open.len() < MOST_REQUESTS {
            self.open.insert(reply.into(), Budget { left: rule.max, until });
        }
    }

    /// Takes one answer to the subject, when there is one left.
    pub(crate) fn take(&mut self, subject: &str, now: u64) -> bool {
        let Some(budget) = self.open.get_mut(subject) else {
            return false;
        };
        if budget.until.is_some_and(|until| until < now) {
            self.open.remove(subject);
            return false;
        }
        match &mut budget.left {
            None => {}
            Some(left) if *left > 1 => *left -= 1,
            Some(_) => {
                self.open.remove(subject);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_delivery_adds_its_answers_and_time_takes_them() {
        let rule = ResponseBudget { max: Some(1), ttl: Some(Duration::from_millis(100)) };
        let mut budgets = Budgets::default();
        assert!(!budgets.take("in.1", 0));
        budgets.delivered("in.1", rule, 0);
        budgets.delivered("in.1", rule, 10);
        assert!(budgets.take("in.1", 20) && budgets.take("in.1", 20) && !budgets.take("in.1", 20));
        budgets.delivered("in.2", rule, 0);
        assert!(!budgets.take("in.2", 101));
        budgets.delivered("in.3", ResponseBudget { max: None, ttl: None }, 0);
        assert!((0..100).all(|_| budgets.take("in.3", u64::MAX)));
    }
}
