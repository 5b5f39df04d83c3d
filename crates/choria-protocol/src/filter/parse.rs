//! Text forms of filters: `-F country=mt`, `-W "apache country=mt"` (spec 01 §7.2, spec 05 §3.3).

use crate::filter::{FactFilter, FactOperator, is_regex};

/// Why a filter text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No operator, or nothing on one side of it.
    #[error("could not parse fact {0} it does not appear to be in a valid format")]
    NotAFact(String),
    /// A regular expression with an operator that would be ignored.
    #[error(
        "fact {fact} cannot be compared with a regular expression by {operator}: use = or =~, and !with('{name}={value}') in a compound filter for the opposite",
        name = fact_name(fact, operator)
    )]
    RegexWithOperator {
        /// The whole text.
        fact: String,
        /// Operator as written.
        operator: &'static str,
        /// The value with its slashes.
        value: String,
    },
    /// A word of a mixed filter that is neither a fact nor a class.
    #[error("{0} is neither a fact expression nor a class: write fact=value without blanks around the operator")]
    NotAWord(String),
}

fn fact_name<'a>(fact: &'a str, operator: &str) -> &'a str {
    fact.rsplit_once(operator).map_or(fact, |(name, _)| name.trim())
}

/// Operators as written and what they mean, in the order in which they are tried at each place.
const TOKENS: [(&str, FactOperator); 10] = [
    ("<=", FactOperator::LessOrEqual),
    (">=", FactOperator::GreaterOrEqual),
    ("=>", FactOperator::GreaterOrEqual),
    ("=<", FactOperator::LessOrEqual),
    ("<", FactOperator::Less),
    (">", FactOperator::Greater),
    ("!=", FactOperator::NotEqual),
    ("=~", FactOperator::Matches),
    ("==", FactOperator::Equal),
    ("=", FactOperator::Equal),
];

/// Reads a fact expression. The last operator in the text counts, so `a==b=c` asks for fact `a==b`. A value between
/// slashes means `=~`; with any operator but `=`, `==` and `=~` it is refused, where the original silently asks for the
/// positive match (spec 05 §12 row 37).
///
/// # Errors
/// [`ParseError::NotAFact`] or [`ParseError::RegexWithOperator`].
pub fn parse_fact(text: &str) -> Result<FactFilter, ParseError> {
    let not_a_fact = || ParseError::NotAFact(text.to_owned());
    let (start, token, mut operator) = last_operator(text).ok_or_else(not_a_fact)?;
    let fact = text[..start].trim();
    let value = text[start + token.len()..].trim();
    let is_operator = |c: char| matches!(c, '<' | '>' | '=');
    if fact.is_empty() || value.is_empty() || fact.starts_with(is_operator) || value.ends_with(is_operator) {
        return Err(not_a_fact());
    }
    if is_regex(value) {
        if !matches!(operator, FactOperator::Equal | FactOperator::Matches) {
            let (fact, value) = (text.to_owned(), value.to_owned());
            return Err(ParseError::RegexWithOperator { fact, operator: token, value });
        }
        operator = FactOperator::Matches;
    }
    Ok(FactFilter { fact: fact.to_owned(), operator, value: value.to_owned() })
}

/// Where the last operator begins, how it is written and what it means.
fn last_operator(text: &str) -> Option<(usize, &'static str, FactOperator)> {
    let mut found = None;
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(first) = rest.chars().next() else { break };
        match TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
            Some(&(token, operator)) => {
                found = Some((at, token, operator));
                at += token.len();
            }
            None => at += first.len_utf8(),
        }
    }
    found
}

/// Reads the argument of `-W`: words between single blanks, those that are fact expressions become facts, the others
/// classes. A word with an operator at its edge (what remains of `country = mt`) is refused; the original takes it for a
/// class that nobody has.
///
/// # Errors
/// [`ParseError::RegexWithOperator`] or [`ParseError::NotAWord`].
pub fn parse_mixed(text: &str) -> Result<(Vec<FactFilter>, Vec<String>), ParseError> {
    let (mut facts, mut classes) = (Vec::new(), Vec::new());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match parse_fact(word) {
            Ok(fact) => facts.push(fact),
            Err(error @ ParseError::RegexWithOperator { .. }) => return Err(error),
            Err(_) if is_regex(word) || last_operator(word).is_none() => classes.push(word.to_owned()),
            Err(_) => return Err(ParseError::NotAWord(word.to_owned())),
        }
    }
    Ok((facts, classes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (String, &'static str, String) {
        let fact = parse_fact(text).unwrap();
        (fact.fact, fact.operator.as_str(), fact.value)
    }

    #[test]
    fn documented_expressions() {
        for (text, fact, operator, value) in [
            ("os.name=centos", "os.name", "==", "centos"),
            ("a=~/x/", "a", "=~", "/x/"),
            ("a=/x/", "a", "=~", "/x/"),
            ("a==/x/", "a", "=~", "/x/"),
            ("a=<1", "a", "<=", "1"),
            ("a=>1", "a", ">=", "1"),
            ("k=v=w", "k=v", "==", "w"),
            (" a = b ", "a", "==", "b"),
            ("country=mt", "country", "==", "mt"),
            ("os.release.major>=9", "os.release.major", ">=", "9"),
            ("a => 3", "a", ">=", "3"),
            ("mem =< 4", "mem", "<=", "4"),
            ("name=/web/", "name", "=~", "/web/"),
            ("x.#(name==\"y\").z=1", "x.#(name==\"y\").z", "==", "1"),
            ("a==b=c", "a==b", "==", "c"),
            ("note=a=b", "note=a", "==", "b"),
            ("ä=ö", "ä", "==", "ö"),
            ("a!=b", "a", "!=", "b"),
            ("a<b", "a", "<", "b"),
            ("a>b", "a", ">", "b"),
        ] {
            assert_eq!(parsed(text), (fact.to_owned(), operator, value.to_owned()), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_facts() {
        for text in [
            "=b",
            "a=",
            "a=b>",
            "ab",
            "=foo",
            "foo=",
            "foo",
            "size<10>",
            "country=~",
            "country:mt",
            "@=",
            "",
            "=",
            "==",
        ] {
            assert_eq!(parse_fact(text), Err(ParseError::NotAFact(text.to_owned())), "{text}");
        }
        assert_eq!(
            parse_fact("foo=").unwrap_err().to_string(),
            "could not parse fact foo= it does not appear to be in a valid format"
        );
    }

    #[test]
    fn a_regex_is_never_turned_into_its_opposite() {
        for operator in ["!=", "<", ">", "<=", ">=", "=<", "=>"] {
            let error = parse_fact(&format!("country{operator}/m/")).unwrap_err();
            assert!(matches!(error, ParseError::RegexWithOperator { .. }), "{operator}");
            assert!(error.to_string().contains("!with('country=/m/')"), "{error}");
        }
    }

    #[test]
    fn mixed_filters() {
        let (facts, classes) = parse_mixed("  /apache/ location=uk  roles::db ").unwrap();
        assert_eq!(facts, [parse_fact("location=uk").unwrap()]);
        assert_eq!(classes, ["/apache/", "roles::db"]);
        assert_eq!(parse_mixed(" ").unwrap(), (vec![], vec![]));
        assert_eq!(parse_mixed("country =mt"), Err(ParseError::NotAWord("=mt".to_owned())));
        assert_eq!(parse_mixed("country = mt"), Err(ParseError::NotAWord("=".to_owned())));
        assert!(parse_mixed("apache country!=/m/").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-z<>=!~/ .é]{0,24}") {
            if let Ok(fact) = parse_fact(&text) {
                prop_assert!(!fact.fact.is_empty() && !fact.value.is_empty());
            }
            let _ = parse_mixed(&text);
        }

        #[test]
        fn what_is_shown_parses_to_the_same(fact in "[a-z][a-z.]{0,8}", value in "[a-z0-9.]{1,8}", index in 0..7usize) {
            let filter = FactFilter { fact, operator: FactOperator::ALL[index], value };
            prop_assert_eq!(parse_fact(&filter.to_string()).unwrap(), filter);
        }
    }
}
