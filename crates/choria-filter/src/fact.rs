//! Comparing one fact (spec 01 §7.1, spec 05 §3.4).

use std::borrow::Cow;
use std::cmp::Ordering;

use ::regex::Regex;
use choria_protocol::filter::{FactFilter, FactOperator};
use serde_json::{Number, Value};

use crate::gjson;
use crate::matcher::MatchError;
use crate::regex::{go_regex_ignoring_case, strip_slashes};

/// A fact filter ready to be compared with many nodes.
///
/// The type of the fact decides how the value is understood. Fixed against the original (spec 01 sharp edge 15, spec 05 §12 row
/// 37): `>` with a decimal value is not `>=`, `!=` on a false fact is not inverted, and slashes around the value are not
/// part of it when the fact is a boolean. A fact that a node does not have matches nothing, `!=` included.
#[derive(Debug, Clone)]
pub struct FactMatcher {
    filter: FactFilter,
    regex: Option<Regex>,
}

impl FactMatcher {
    /// Prepares a filter.
    ///
    /// # Errors
    /// A regular expression that does not compile.
    pub fn new(filter: &FactFilter) -> Result<Self, MatchError> {
        let regex = match filter.operator {
            FactOperator::Matches => {
                let regex = go_regex_ignoring_case(strip_slashes(&filter.value));
                Some(regex.map_err(|error| MatchError::fact(filter, error.to_string()))?)
            }
            _ => None,
        };
        Ok(Self { filter: filter.clone(), regex })
    }

    /// Compares with the facts of a node.
    ///
    /// # Errors
    /// When fact and value cannot be compared, such as ordering a number against text. The node does not match then.
    pub fn matches(&self, facts: &Value) -> Result<bool, MatchError> {
        let found = gjson::get(facts, &self.filter.fact).map_err(|error| self.error(error.to_string()))?;
        match found.as_deref() {
            None => Ok(false),
            Some(Value::String(text)) => Ok(self.text(text)),
            Some(Value::Number(number)) => self.number(number),
            Some(Value::Bool(flag)) => self.boolean(*flag),
            Some(Value::Null | Value::Array(_) | Value::Object(_)) => match self.filter.operator {
                FactOperator::Equal | FactOperator::NotEqual | FactOperator::Matches => Ok(false),
                _ => Err(self.error("the fact has no order".to_owned())),
            },
        }
    }

    fn error(&self, detail: String) -> MatchError {
        MatchError::fact(&self.filter, detail)
    }

    fn text(&self, fact: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(fact),
            None => ordered(self.filter.operator, folded(fact).cmp(&folded(&self.filter.value))),
        }
    }

    /// A value with a `.` is compared as floating point number, any other with the whole part of the fact.
    fn number(&self, fact: &Number) -> Result<bool, MatchError> {
        let value = self.filter.value.as_str();
        let fact = fact.as_f64().ok_or_else(|| self.error("the fact is not a number".to_owned()))?;
        let decimal = value.contains('.');
        if let Some(regex) = &self.regex {
            let text = if decimal { format!("{fact:.4}") } else { whole(fact).to_string() };
            return Ok(regex.is_match(&text));
        }
        if decimal {
            let value: f64 = value.parse().map_err(|_| self.error(format!("{value} is not a number")))?;
            let ordering = fact.partial_cmp(&value);
            return Ok(ordering.is_some_and(|ordering| ordered(self.filter.operator, ordering)));
        }
        match self.filter.operator {
            FactOperator::Equal => Ok(whole(fact).to_string() == value),
            FactOperator::NotEqual => Ok(whole(fact).to_string() != value),
            operator => {
                let value: i64 = value.parse().map_err(|_| self.error(format!("{value} is not a whole number")))?;
                Ok(ordered(operator, whole(fact).cmp(&value)))
            }
        }
    }

    /// `1 t T TRUE true True` are true, all other values false.
    fn boolean(&self, fact: bool) -> Result<bool, MatchError> {
        let value: Cow<'_, str> = match self.filter.operator {
            FactOperator::Equal | FactOperator::NotEqual => Cow::Borrowed(&self.filter.value),
            FactOperator::Matches => Cow::Owned(strip_slashes(&self.filter.value).to_lowercase()),
            _ => return Err(self.error("a boolean fact has no order".to_owned())),
        };
        let wanted = matches!(value.as_ref(), "1" | "t" | "T" | "TRUE" | "true" | "True");
        Ok((fact == wanted) != (self.filter.operator == FactOperator::NotEqual))
    }
}

fn folded(text: &str) -> String {
    text.to_lowercase()
}

/// The number without its fraction; what does not fit becomes the nearest that does.
#[expect(clippy::cast_possible_truncation, reason = "truncating is what the comparison is defined to do")]
fn whole(number: f64) -> i64 {
    number as i64
}

fn ordered(operator: FactOperator, ordering: Ordering) -> bool {
    match operator {
        FactOperator::Equal => ordering.is_eq(),
        FactOperator::NotEqual => ordering.is_ne(),
        FactOperator::Less => ordering.is_lt(),
        FactOperator::LessOrEqual => ordering.is_le(),
        FactOperator::Greater => ordering.is_gt(),
        FactOperator::GreaterOrEqual => ordering.is_ge(),
        FactOperator::Matches => false,
    }
}

#[cfg(test)]
mod tests {
    use choria_protocol::filter::parse_fact;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn compare(facts: &Value, text: &str) -> Result<bool, MatchError> {
        FactMatcher::new(&parse_fact(text).unwrap())?.matches(facts)
    }

    #[test]
    fn documented_comparisons() {
        let facts = json!({"n": 1.9, "s": "Foo", "t": true, "f": false, "o": {}, "abc": "abc", "null": null});
        for (text, expected) in [
            ("n=1", true),
            ("n=1.9", true),
            ("s=foo", true),
            ("absent!=x", false),
            ("t=T", true),
            ("f=banana", true),
            ("o=x", false),
            ("o!=x", false),
            ("null!=x", false),
            ("abc=~/B/", true),
            ("n>1", false),
            ("n>=1", true),
            ("n<2.0", true),
            ("n=/1.9000/", true),
            ("n=/9/", false),
        ] {
            assert_eq!(compare(&facts, text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn sharp_edge_15_greater_with_a_decimal_value_is_not_greater_or_equal() {
        let facts = json!({"n": 1.5});
        assert!(!compare(&facts, "n>1.5").unwrap());
        assert!(compare(&facts, "n>=1.5").unwrap());
        assert!(compare(&facts, "n>1.4").unwrap());
    }

    #[test]
    fn sharp_edge_15_unequal_is_not_inverted_on_false_facts() {
        let facts = json!({"f": false, "t": true});
        assert!(compare(&facts, "f!=true").unwrap());
        assert!(!compare(&facts, "f!=false").unwrap());
        assert!(compare(&facts, "t!=false").unwrap());
        assert!(!compare(&facts, "t!=true").unwrap());
    }

    #[test]
    fn sharp_edge_37_slashes_are_not_part_of_a_boolean_value() {
        let facts = json!({"f": false, "t": true});
        assert!(compare(&facts, "t=/true/").unwrap());
        assert!(!compare(&facts, "f=/TRUE/").unwrap());
        assert!(compare(&facts, "f=/false/").unwrap());
    }

    #[test]
    fn what_has_no_order_is_an_error() {
        let facts = json!({"t": true, "o": {}, "n": 1, "l": [], "z": null});
        for text in ["t>0", "o<1", "n>abc", "n>1e0", "n=a.b", "l>=1", "z<1"] {
            assert!(compare(&facts, text).is_err(), "{text}");
        }
        assert!(compare(&facts, "n=/(/").is_err());
    }

    proptest! {
        #[test]
        fn comparisons_agree_with_each_other(number in -1000i32..1000, value in -1000i32..1000) {
            let facts = json!({"n": number});
            for suffix in ["", ".0"] {
                let is = |operator: &str| compare(&facts, &format!("n{operator}{value}{suffix}")).unwrap();
                prop_assert_eq!(is("="), number == value);
                prop_assert_eq!(is("!="), number != value);
                prop_assert_eq!(is("<"), number < value);
                prop_assert_eq!(is("<="), number <= value);
                prop_assert_eq!(is(">"), number > value);
                prop_assert_eq!(is(">="), number >= value);
            }
        }

        #[test]
        fn unequal_is_the_opposite_for_scalars(fact in prop_oneof![
            any::<bool>().prop_map(Value::from), any::<i32>().prop_map(Value::from), "[a-z]{0,3}".prop_map(Value::from)
        ], value in "[a-z0-9]{1,3}") {
            let facts = json!({"n": fact});
            let equal = compare(&facts, &format!("n={value}")).unwrap();
            prop_assert_eq!(compare(&facts, &format!("n!={value}")).unwrap(), !equal);
        }
    }
}
