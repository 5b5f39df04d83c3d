//! Subjects that change when they cross from one account to another (spec 07 §8).

use smallvec::SmallVec;

use nats_proto::subject::{has_no_empty_token, is_valid_filter, tokens};

/// One token of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// The wildcard of this number, counted from 0 on the exporting side.
    Wildcard(usize),
    /// Everything that is left.
    Tail,
}

/// The two sides of an import. Both directions can be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectMap {
    exported: Vec<Part>,
    local: Vec<Part>,
    identical: bool,
}

impl SubjectMap {
    /// Joins the exporting account's filter with the importing account's subject.
    pub(crate) fn new(exported: &str, local: &str) -> Result<Self, &'static str> {
        if !is_valid_filter(exported) || !is_valid_filter(local) {
            return Err("not a valid subject");
        }
        let mut wildcards = 0;
        let exported_parts: Vec<Part> = tokens(exported)
            .map(|token| match token {
                "*" => {
                    wildcards += 1;
                    Ok(Part::Wildcard(wildcards - 1))
                }
                ">" => Ok(Part::Tail),
                _ if reference(token).is_some() => Err("a wildcard reference belongs into the local subject"),
                _ => Ok(Part::Literal(token.into())),
            })
            .collect::<Result<_, _>>()?;
        let mut next = 0;
        let mut seen = vec![false; wildcards];
        let mut local_parts = Vec::new();
        for token in tokens(local) {
            let index = match (token, reference(token)) {
                ("*", _) => {
                    next += 1;
                    next - 1
                }
                (">", _) => {
                    local_parts.push(Part::Tail);
                    continue;
                }
                (_, Some(number)) => number.checked_sub(1).ok_or("wildcards are counted from 1")?,
                (_, None) => {
                    local_parts.push(Part::Literal(token.into()));
                    continue;
                }
            };
            let slot = seen.get_mut(index).ok_or("more wildcards than in the exported subject")?;
            if std::mem::replace(slot, true) {
                return Err("a wildcard is used twice");
            }
            local_parts.push(Part::Wildcard(index));
        }
        if seen.contains(&false) {
            return Err("fewer wildcards than in the exported subject");
        }
        if exported_parts.contains(&Part::Tail) != local_parts.contains(&Part::Tail) {
            return Err("'>' must be on both sides or on neither");
        }
        Ok(Self { identical: exported_parts == local_parts, exported: exported_parts, local: local_parts })
    }

    /// The subject in the importing account of a message published in the exporting one.
    pub(crate) fn to_local(&self, subject: &str) -> Option<String> {
        self.convert(&self.exported, &self.local, subject)
    }

    /// The subject in the exporting account of a request published in the importing one.
    pub(crate) fn to_exported(&self, subject: &str) -> Option<String> {
        self.convert(&self.local, &self.exported, subject)
    }

    fn convert(&self, from: &[Part], to: &[Part], subject: &str) -> Option<String> {
        // Most messages of an account have nothing to do with its imports.
        if let Some(Part::Literal(first)) = from.first()
            && !subject.starts_with(&**first)
        {
            return None;
        }
        if !has_no_empty_token(subject) {
            return None;
        }
        let mut captured: SmallVec<[&str; 8]> = SmallVec::from_elem("", from.len());
        let mut rest = Some(subject);
        let mut tail = "";
        for part in from {
            let here = rest?;
            if *part == Part::Tail {
                tail = here;
                rest = None;
                break;
            }
            let (token, behind) = match here.split_once('.') {
                Some((token, behind)) => (token, Some(behind)),
                None => (here, None),
            };
            match part {
                Part::Literal(literal) if **literal != *token => return None,
                Part::Wildcard(index) => captured[*index] = token,
                Part::Literal(_) | Part::Tail => {}
            }
            rest = behind;
        }
        if rest.is_some() {
            return None;
        }
        if self.identical {
            return Some(subject.to_owned());
        }
        let mut out = String::with_capacity(subject.len() + 16);
        for (index, part) in to.iter().enumerate() {
            if index > 0 {
                out.push('.');
            }
            out.push_str(match part {
                Part::Literal(literal) => literal,
                Part::Wildcard(index) => captured[*index],
                Part::Tail => tail,
            });
        }
        Some(out)
    }

    /// The importing side as a filter.
    pub(crate) fn local_filter(&self) -> String {
        filter_of(&self.local)
    }

    /// The exporting side as a filter.
    pub(crate) fn exported_filter(&self) -> String {
        filter_of(&self.exported)
    }
}

fn filter_of(parts: &[Part]) -> String {
    let tokens: Vec<&str> = parts
        .iter()
        .map(|part| match part {
            Part::Literal(literal) => literal,
            Part::Wildcard(_) => "*",
            Part::Tail => ">",
        })
        .collect();
    tokens.join(".")
}

/// The number of a `$n` token.
fn reference(token: &str) -> Option<usize> {
    let digits = token.strip_prefix('$')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_carried_over_and_may_change_places() {
        for (exported, local, there, here) in [
            ("s.>", "s.>", "s.a.b", "s.a.b"),
            ("s.x.>", "pre.s.x.>", "s.x.1", "pre.s.x.1"),
            ("priv.*", "my.*", "priv.q", "my.q"),
            ("map.*.*", "swap.$2.$1", "map.one.two", "swap.two.one"),
            ("deep.>", "d.>", "deep.a.b.c", "d.a.b.c"),
            ("a.b", "c", "a.b", "c"),
        ] {
            let map = SubjectMap::new(exported, local).unwrap();
            assert_eq!(map.to_local(there).as_deref(), Some(here), "{exported} -> {local}");
            assert_eq!(map.to_exported(here).as_deref(), Some(there), "{local} -> {exported}");
        }
        let map = SubjectMap::new("s.*", "t.*").unwrap();
        for other in ["s", "s.a.b", "x.a", "s.", "s..a"] {
            assert_eq!(map.to_local(other), None, "{other}");
        }
        assert_eq!(map.local_filter(), "t.*");
    }

    #[test]
    fn sides_that_do_not_fit_are_refused() {
        for (exported, local) in [
            ("svc.w.$1", "w.*"),
            ("a.*", "b"),
            ("a", "b.*"),
            ("a.*.*", "b.$1.$1"),
            ("a.*", "b.$0"),
            ("a.*", "b.$9"),
            ("a.>", "b"),
            ("a..b", "c"),
        ] {
            assert!(SubjectMap::new(exported, local).is_err(), "{exported} -> {local}");
        }
    }
}
