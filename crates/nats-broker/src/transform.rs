//! Subjects that are replaced when they are published (spec 07 §8): templates with parts of the source, functions and
//! weights. Pure: randomness comes in as a parameter.

use nats_proto::subject::{has_wildcard, is_valid_filter, is_valid_publish, overlaps, tokens};
use smallvec::SmallVec;

use crate::config::{SubjectMapping, TransformError};

/// One token of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// The text of a wildcard, counted from 0.
    Wildcard(usize),
    /// Everything behind the source's `>`.
    Tail,
    /// The number of a partition: a hash over some wildcards, or over the whole subject when none is named.
    Partition {
        count: u32,
        of: Vec<usize>,
    },
    /// A number below the limit.
    Random(u32),
    /// A wildcard cut into several tokens, or a piece of it.
    Cut {
        wildcard: usize,
        cut: Cut,
    },
}

/// How a token is cut. Sizes are in bytes, but no character is cut apart; a size of 0 or beyond the token leaves it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cut {
    /// At every separator; empty pieces are left out.
    Split(Box<str>),
    /// Once, so far from the start.
    SplitFromLeft(usize),
    /// Once, so far from the end.
    SplitFromRight(usize),
    /// Into pieces of a size, the last one may be shorter.
    SliceFromLeft(usize),
    /// Into pieces of a size, the first one may be shorter.
    SliceFromRight(usize),
    /// The start of it.
    Left(usize),
    /// The end of it.
    Right(usize),
}

/// The new subject of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

/// What a published subject has at the wildcards of a source.
#[derive(Debug, Default)]
struct Captured<'a> {
    wildcards: SmallVec<[&'a str; 8]>,
    tail: &'a str,
}

impl<'a> Captured<'a> {
    /// Compares token by token. A wildcard in the published subject is an ordinary token, but `>` is not one token.
    fn new(source: &str, subject: &'a str) -> Option<Self> {
        let mut captured = Self::default();
        let mut rest = Some(subject);
        for wanted in tokens(source) {
            let here = rest?;
            if wanted == ">" {
                captured.tail = here;
                return Some(captured);
            }
            let (token, behind) = match here.split_once('.') {
                Some((token, behind)) => (token, Some(behind)),
                None => (here, None),
            };
            match wanted {
                "*" if token != ">" => captured.wildcards.push(token),
                _ if wanted == token => {}
                _ => return None,
            }
            rest = behind;
        }
        rest.is_none().then_some(captured)
    }
}

impl Template {
    /// Reads a template for subjects of a source.
    ///
    /// # Errors
    /// See [`TransformError`].
    pub(crate) fn new(source: &str, text: &str) -> Result<Self, TransformError> {
        if !is_valid_filter(source) {
            return Err(TransformError::BadSource);
        }
        let wildcards = tokens(source).filter(|token| *token == "*").count();
        let parts: Result<Vec<Part>, _> =
            split_template(text).into_iter().map(|token| part(token, wildcards)).collect();
        let mut parts = parts?;
        if !has_wildcard(source) {
            // The reference hashes nothing then; so every message is in the same partition as there.
            for part in &mut parts {
                if let Part::Partition { count, .. } = part {
                    *part = Part::Literal(partition(std::iter::empty(), *count).to_string().into());
                }
            }
        }
        let tails = parts.iter().filter(|part| **part == Part::Tail).count();
        let ends_with_tail = parts.last() == Some(&Part::Tail);
        if tails > 1 || (tails == 1) != ends_with_tail || ends_with_tail != (tokens(source).next_back() == Some(">")) {
            return Err(TransformError::LoneTail);
        }
        Ok(Self { parts })
    }

    /// Whether two messages of one subject may get different ones.
    fn is_random(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Random(_)))
    }

    /// A filter of everything that this can become.
    fn filter(&self) -> String {
        let mut tokens = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match part {
                Part::Literal(literal) => tokens.push(&**literal),
                // Any number of tokens, or none.
                Part::Tail | Part::Cut { .. } => {
                    tokens.push(">");
                    break;
                }
                Part::Wildcard(_) | Part::Partition { .. } | Part::Random(_) => tokens.push("*"),
            }
        }
        tokens.join(".")
    }

    fn render(&self, captured: &Captured<'_>, subject: &str, random: &mut dyn FnMut(usize) -> usize) -> String {
        let mut out = String::with_capacity(subject.len() + 16);
        for (number, part) in self.parts.iter().enumerate() {
            if number > 0 {
                out.push('.');
            }
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Wildcard(index) => out.push_str(captured.wildcards[*index]),
                Part::Tail => out.push_str(captured.tail),
                Part::Partition { count, of } if of.is_empty() => {
                    out.push_str(&partition([subject].into_iter(), *count).to_string());
                }
                Part::Partition { count, of } => {
                    let chosen = of.iter().map(|index| captured.wildcards[*index]);
                    out.push_str(&partition(chosen, *count).to_string());
                }
                Part::Random(limit) => out.push_str(&random(*limit as usize).to_string()),
                Part::Cut { wildcard, cut } => cut.render(captured.wildcards[*wildcard], &mut out),
            }
        }
        out
    }
}

impl Cut {
    fn render(&self, token: &str, out: &mut String) {
        let whole = |size: usize| size == 0 || size >= token.len();
        let (left, right) = match *self {
            Self::Split(ref separator) => {
                let mut pieces = token.split(&**separator).filter(|piece| !piece.is_empty());
                out.extend(pieces.next());
                for piece in pieces {
                    out.push('.');
                    out.push_str(piece);
                }
                return;
            }
            Self::SplitFromLeft(size) | Self::SliceFromLeft(size) | Self::Left(size) if whole(size) => (token, ""),
            Self::SplitFromRight(size) | Self::SliceFromRight(size) | Self::Right(size) if whole(size) => (token, ""),
            Self::SplitFromLeft(at) => token.split_at(floor(token, at)),
            Self::SplitFromRight(at) => token.split_at(floor(token, token.len() - at)),
            Self::Left(size) => (&token[..floor(token, size)], ""),
            Self::Right(size) => (&token[floor(token, token.len() - size)..], ""),
            Self::SliceFromLeft(size) => return slices(token, size, size, out),
            Self::SliceFromRight(size) => return slices(token, token.len() % size, size, out),
        };
        out.push_str(left);
        if !left.is_empty() && !right.is_empty() {
            out.push('.');
        }
        out.push_str(right);
    }
}

/// Pieces of a size, the first one of another; a character that is larger than a piece is a piece of its own.
fn slices(token: &str, first: usize, size: usize, out: &mut String) {
    let mut rest = token;
    let mut next = if first == 0 { size } else { first };
    while !rest.is_empty() {
        let mut at = floor(rest, next);
        if at == 0 {
            at = rest.chars().next().map_or(rest.len(), char::len_utf8);
        }
        let (piece, behind) = rest.split_at(at);
        if rest.len() < token.len() {
            out.push('.');
        }
        out.push_str(piece);
        rest = behind;
        next = size;
    }
}

/// The last place up to `at` where no character is cut apart.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// FNV-1a of 32 bits over the texts one behind the other.
fn partition<'a>(texts: impl Iterator<Item = &'a str>, count: u32) -> u32 {
    let hash = texts
        .flat_map(str::bytes)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % count
}

/// Tokens of a template; dots inside `{{…}}` separate nothing.
fn split_template(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("{{") && at == start {
            at += rest.find("}}").map_or(2, |end| end + 2);
        } else if rest.starts_with('.') {
            parts.push(&text[start..at]);
            at += 1;
            start = at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    parts.push(&text[start..]);
    parts
}

/// One token of a template.
fn part(token: &str, wildcards: usize) -> Result<Part, TransformError> {
    if token == ">" {
        return Ok(Part::Tail);
    }
    if let Some(digits) = token.strip_prefix('$')
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Ok(Part::Wildcard(index(digits, token, wildcards)?));
    }
    if let Some(inside) = token.strip_prefix("{{") {
        let call = inside.strip_suffix("}}").ok_or_else(|| TransformError::Unclosed(token.to_owned()))?;
        return function(call, token, wildcards);
    }
    if token == "*" || !is_valid_publish(token) {
        return Err(TransformError::BadTarget);
    }
    Ok(Part::Literal(token.into()))
}

/// A call `name(argument, …)`; case of the name and blanks around arguments do not matter.
fn function(call: &str, token: &str, wildcards: usize) -> Result<Part, TransformError> {
    let unknown = || TransformError::UnknownFunction(token.to_owned());
    let (name, arguments) = call.trim().split_once('(').ok_or_else(unknown)?;
    let arguments = arguments.strip_suffix(')').ok_or_else(unknown)?;
    let arguments: Vec<&str> = if arguments.trim().is_empty() { Vec::new() } else { arguments.split(',').collect() };
    let count = |wanted: usize| {
        if arguments.len() == wanted { Ok(()) } else { Err(TransformError::ArgumentCount(token.to_owned())) }
    };
    let wildcard = || index(arguments[0].trim(), token, wildcards);
    let size = || number(arguments[1].trim(), token).map(|size| size as usize);
    let cut = |make: fn(usize) -> Cut| {
        count(2)?;
        Ok(Part::Cut { wildcard: wildcard()?, cut: make(size()?) })
    };
    match name.trim().to_ascii_lowercase().as_str() {
        "wildcard" => {
            count(1)?;
            Ok(Part::Wildcard(wildcard()?))
        }
        "partition" => {
            let (first, of) = arguments.split_first().ok_or_else(|| TransformError::Argument(token.to_owned()))?;
            let of = of.iter().map(|text| index(text.trim(), token, wildcards)).collect::<Result<_, _>>()?;
            Ok(Part::Partition { count: positive(first.trim(), token)?, of })
        }
        "random" => {
            count(1)?;
            Ok(Part::Random(positive(arguments[0].trim(), token)?))
        }
        "split" => {
            count(2)?;
            let separator = arguments[1].trim();
            if separator.is_empty() {
                return Err(TransformError::Argument(token.to_owned()));
            }
            Ok(Part::Cut { wildcard: wildcard()?, cut: Cut::Split(separator.into()) })
        }
        "splitfromleft" => cut(Cut::SplitFromLeft),
        "splitfromright" => cut(Cut::SplitFromRight),
        "slicefromleft" => cut(Cut::SliceFromLeft),
        "slicefromright" => cut(Cut::SliceFromRight),
        "left" => cut(Cut::Left),
        "right" => cut(Cut::Right),
        _ => Err(unknown()),
    }
}

fn number(text: &str, token: &str) -> Result<u32, TransformError> {
    let number = text.parse::<u32>().ok().filter(|number| *number <= i32::MAX as u32);
    number.ok_or_else(|| TransformError::Argument(token.to_owned()))
}

/// A number above 0: nothing can be divided among none.
fn positive(text: &str, token: &str) -> Result<u32, TransformError> {
    number(text, token).and_then(|number| match number {
        0 => Err(TransformError::Argument(token.to_owned())),
        _ => Ok(number),
    })
}

/// The position of a wildcard, which templates count from 1.
fn index(text: &str, token: &str, wildcards: usize) -> Result<usize, TransformError> {
    match number(text, token)? as usize {
        number if (1..=wildcards).contains(&number) => Ok(number - 1),
        _ => Err(TransformError::NoSuchWildcard(token.to_owned())),
    }
}

/// A mapping that was checked.
#[derive(Debug)]
pub(crate) struct Mapping {
    source: Box<str>,
    has_wildcard: bool,
    /// Templates with the sum of the weights up to each, in percent.
    targets: Vec<(u8, Template)>,
    is_random: bool,
}

impl Mapping {
    /// Checks a mapping.
    ///
    /// # Errors
    /// See [`TransformError`].
    pub(crate) fn new(config: &SubjectMapping) -> Result<Self, TransformError> {
        if config.targets.is_empty() {
            return Err(TransformError::NoTarget);
        }
        let mut sum = 0_u8;
        let mut targets = Vec::with_capacity(config.targets.len());
        for (number, target) in config.targets.iter().enumerate() {
            if target.weight == 0 {
                return Err(TransformError::Weight);
            }
            if config.targets[..number].iter().any(|other| other.subject == target.subject) {
                return Err(TransformError::DuplicateTarget(target.subject.clone()));
            }
            sum = sum.checked_add(target.weight).filter(|sum| *sum <= 100).ok_or(TransformError::Weight)?;
            targets.push((sum, Template::new(&config.source, &target.subject)?));
        }
        let is_random = sum < 100 || targets.len() > 1 || targets.iter().any(|(_, template)| template.is_random());
        let source = config.source.as_str().into();
        Ok(Self { source, has_wildcard: has_wildcard(&config.source), targets, is_random })
    }

    /// Whether messages of one subject may get different ones.
    pub(crate) fn is_random(&self) -> bool {
        self.is_random
    }

    fn fits(&self, subject: &str) -> bool {
        if self.has_wildcard { Captured::new(&self.source, subject).is_some() } else { *self.source == *subject }
    }

    /// The new subject of a message. `None`: it keeps its own. `random` gives a number below its argument.
    pub(crate) fn apply(&self, subject: &str, random: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        let captured = Captured::new(&self.source, subject)?;
        let template = match self.targets.as_slice() {
            [(100, template)] => template,
            several => {
                let drawn = random(100);
                &several.iter().find(|(up_to, _)| drawn < usize::from(*up_to))?.1
            }
        };
        Some(template.render(&captured, subject, random))
    }
}

/// The mappings of an account, in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    all: Vec<Mapping>,
}

impl Mappings {
    /// Checks the mappings of an account.
    ///
    /// # Errors
    /// The source, and what is wrong with it.
    pub(crate) fn new(configs: &[SubjectMapping]) -> Result<Self, (String, TransformError)> {
        let mut all = Vec::with_capacity(configs.len());
        for (number, config) in configs.iter().enumerate() {
            let failed = |error| (config.source.clone(), error);
            if configs[..number].iter().any(|other| other.source == config.source) {
                return Err(failed(TransformError::DuplicateSource));
            }
            all.push(Mapping::new(config).map_err(failed)?);
        }
        Ok(Self { all })
    }

    /// Filters of what subjects of a filter may be replaced with.
    pub(crate) fn results(&self, filter: &str) -> Vec<String> {
        let touched = self.all.iter().filter(|mapping| overlaps(&mapping.source, filter));
        touched.flat_map(|mapping| mapping.targets.iter().map(|(_, template)| template.filter())).collect()
    }

    /// The first mapping whose source has this subject. Answers to requests of other accounts come on subjects that are the
    /// broker's own; they are never replaced.
    pub(crate) fn find(&self, subject: &str) -> Option<&Mapping> {
        if self.all.is_empty() || subject.starts_with("_R_.") || !nats_proto::subject::has_no_empty_token(subject) {
            return None;
        }
        self.all.iter().find(|mapping| mapping.fits(subject))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::MappingTarget;

    fn mapping(source: &str, targets: &[(&str, u8)]) -> Result<Mapping, TransformError> {
        let targets =
            targets.iter().map(|(subject, weight)| MappingTarget { subject: (*subject).into(), weight: *weight });
        Mapping::new(&SubjectMapping { source: source.into(), targets: targets.collect() })
    }

    fn mapped(source: &str, target: &str, subject: &str) -> Option<String> {
        mapping(source, &[(target, 100)]).unwrap().apply(subject, &mut |_| 0)
    }

    #[test]
    fn sizes_that_do_not_fit_leave_a_token_whole_and_no_character_is_cut_apart() {
        for (function, token, result) in [
            ("left(1,0)", "abc", "abc"),
            ("right(1,0)", "abc", "abc"),
            ("slicefromleft(1,0)", "abc", "abc"),
            ("slicefromright(1,0)", "abc", "abc"),
            ("splitfromleft(1,0)", "abc", "abc"),
            ("splitfromright(1,0)", "abc", "abc"),
            ("split(1,--)", "a--b-c", "a.b-c"),
            ("split(1,-)", "---", ""),
            ("left(1,2)", "äöü", "ä"),
            ("left(1,2)", "a€", "a"),
            ("right(1,2)", "a€", "€"),
            ("slicefromleft(1,2)", "äöü", "ä.ö.ü"),
            ("slicefromleft(1,2)", "€uro€", "€.ur.o.€"),
            ("slicefromright(1,3)", "abcdef", "abc.def"),
            ("splitfromleft(1,1)", "äb", "äb"),
            ("splitfromright(1,2)", "a€", "a.€"),
        ] {
            let got = mapped("s.*", &format!("t.{{{{{function}}}}}"), &format!("s.{token}"));
            assert_eq!(got, Some(format!("t.{result}")), "{function} of {token}");
        }
    }

    #[test]
    fn published_wildcards_are_tokens() {
        for (source, target, subject, result) in [
            ("gt.>", "tg.>", "gt.a.>", Some("tg.a.>")),
            ("two.*.*", "t.$2.$1", "two.*.1", Some("t.1.*")),
            ("two.*.*", "t.$2.$1", "two.1.>", None),
            ("one.>", ">", "one.a", Some("a")),
            ("mid.*", "m.$1x", "mid.a", Some("m.$1x")),
            ("mid.*", "m.x{{wildcard(1)}}", "mid.a", Some("m.x{{wildcard(1)}}")),
            ("a.*", "{{ WILDCARD( 1 ) }}.$1", "a.b", Some("b.b")),
            ("a", "p.{{partition(9)}}", "a", Some("p.7")),
            ("b", "p.{{partition(3)}}", "b", Some("p.1")),
        ] {
            assert_eq!(mapped(source, target, subject).as_deref(), result, "{subject}");
        }
    }

    #[test]
    fn weights_choose_and_what_is_missing_keeps_the_subject() {
        let mapping = mapping("a", &[("b", 20), ("c", 30)]).unwrap();
        assert!(mapping.is_random());
        for (drawn, result) in
            [(0, Some("b")), (19, Some("b")), (20, Some("c")), (49, Some("c")), (50, None), (99, None)]
        {
            assert_eq!(mapping.apply("a", &mut |_| drawn).as_deref(), result, "{drawn}");
        }
    }

    #[test]
    fn the_first_source_in_the_order_of_the_configuration_counts() {
        let one = |source: &str, target: &str| SubjectMapping {
            source: source.into(),
            targets: vec![MappingTarget { subject: target.into(), weight: 100 }],
        };
        let mappings = Mappings::new(&[one("o.*", "first.$1"), one("o.x", "second"), one("o.>", "third.>")]).unwrap();
        let map = |subject| mappings.find(subject).and_then(|found| found.apply(subject, &mut |_| 0));
        assert_eq!(map("o.x").as_deref(), Some("first.x"));
        assert_eq!(map("o.x.y").as_deref(), Some("third.x.y"));
        for other in ["o", "o.", "o..x", "_R_.a.b"] {
            assert_eq!(map(other), None, "{other}");
        }
        assert!(Mappings::new(&[one("a", "b"), one("a", "c")]).is_err());
    }

    #[test]
    fn functions_with_useless_arguments_are_refused() {
        for target in [
            "b.$0",
            "b.$2",
            "b.{{wildcard(0)}}",
            "b.{{wildcard(-1)}}",
            "b.{{wildcard(1,2)}}",
            "b.{{wildcard}}",
            "b.{{wildcard 1}}",
            "b.{{wildcard(1)}}x",
            "b.{{}}",
            "b.{{wild card(1)}}",
            "b.{{partition(5,0)}}",
            "b.{{partition(5,9)}}",
            "b.{{partition(x)}}",
            "b.{{partition(-1)}}",
            "b.{{partition(0)}}",
            "b.{{partition(99999999999)}}",
            "b.{{random(-1)}}",
            "b.{{random()}}",
            "b.{{random(1,2)}}",
            "b.{{split(1,)}}",
            "b.{{split(1,-,+)}}",
            "b.{{split(9,-)}}",
            "b.{{left(1)}}",
            "b.{{left(1,x)}}",
            "b.{{left(0,1)}}",
            "b.{{left(1,-1)}}",
            "b c",
            "",
            "b.",
            "b.{{wildcard(1)",
            "b.>",
            "b.>.c",
        ] {
            assert!(mapping("a.*", &[(target, 100)]).is_err(), "{target}");
        }
    }

    fn source() -> impl Strategy<Value = String> {
        "([*a]|[*a][.][*a]|[*a][.]>|>|[*][.][*][.]>)"
    }

    fn target() -> impl Strategy<Value = String> {
        let function = "[{][{](wildcard|partition|split|splitfromleft|slicefromright|left|right|random)[(][0-3],?[-0-9]{0,2}[)][}][}]";
        let token = prop_oneof!["[a-c]", "[$][0-3]", function, "[*>{}$.( ]{1,3}"];
        proptest::collection::vec(token, 1..4).prop_map(|tokens| tokens.join("."))
    }

    proptest! {
        /// Whatever is configured and published: a subject without control characters or blanks comes out, or the old one.
        #[test]
        fn no_template_and_no_subject_make_it_panic(
            source in source(),
            target in target(),
            weight in any::<u8>(),
            subject in "([a-c*>äé€-]{0,4}[.]){0,3}[a-cäé€-]{1,5}",
            drawn in any::<usize>(),
        ) {
            if let Ok(mapping) = mapping(&source, &[(&target, weight)]) {
                let mapped = mapping.apply(&subject, &mut |limit| drawn % limit);
                let mapped = mapped.unwrap_or(subject);
                prop_assert!(nats_proto::subject::has_only_subject_bytes(mapped.as_bytes()), "{:?}", mapped);
            }
        }
    }
}
