//! `exports` and `imports` of an account.

use std::time::Duration;

use super::{Entry, Key, Reader};
use crate::parse::shown;
use crate::settings::{Export, ExportKind, Import, ImportKind, Latency, ResponseType, Sampling};
use crate::value::{Kind, Value};
use crate::{Located, Position, subject};

/// An export that is being read.
#[derive(Default)]
struct ExportDraft {
    stream: Option<Located<String>>,
    service: Option<Located<String>>,
    accounts: Option<Vec<Located<String>>>,
    response: Option<Located<ResponseType>>,
    threshold: Option<Located<Duration>>,
    latency: Option<Located<Latency>>,
    account_token_position: Option<Located<u64>>,
    allow_trace: Option<Located<bool>>,
}

const EXPORT_KEYS: &[Key<ExportDraft>] = &[
    Key { names: &["stream"], read: |x, e, r| x.stream = filter(e, r) },
    Key { names: &["service"], read: |x, e, r| x.service = filter(e, r) },
    Key { names: &["accounts"], read: |x, e, r| x.accounts = r.text_list(e) },
    Key { names: &["response_type", "response"], read: |x, e, r| x.response = response_type(e, r) },
    Key {
        names: &["response_threshold", "threshold", "response_max_time", "response_time"],
        read: |x, e, r| x.threshold = r.duration_text(e).and_then(|span| r.not_negative(e, span)),
    },
    Key { names: &["latency"], read: |x, e, r| x.latency = latency(e, r) },
    Key { names: &["account_token_position"], read: |x, e, r| x.account_token_position = r.count(e) },
    Key { names: &["allow_trace"], read: |x, e, r| x.allow_trace = r.located_bool(e) },
];

fn list<'e>(entry: &Entry<'e>, reader: &mut Reader<'_>) -> &'e [Value] {
    match &entry.value.kind {
        Kind::List(values) => values,
        _ => reader.wrong(entry, "a list of blocks in `[ ]`", None).unwrap_or_default(),
    }
}

fn filter(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let text = reader.text(entry)?;
    if subject::is_filter(&text) {
        return Some(text);
    }
    reader.bad(
        entry,
        "this is not a valid subject",
        Some("tokens between the points must not be empty, `>` is the last"),
    )
}

pub(super) fn exports(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Export> {
    list(entry, reader).iter().filter_map(|value| export(&Entry { value, ..*entry }, reader)).collect()
}

fn export(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Export> {
    let before = reader.problems.len();
    let draft = reader.map_into("an export", entry, EXPORT_KEYS)?;
    if reader.problems.len() != before {
        return None;
    }
    let at = entry.value.at.clone();
    let (kind, subject) = match (&draft.stream, &draft.service) {
        (Some(_), Some(service)) => return twice(&service.at, reader),
        (None, None) => return neither(&at, reader),
        (Some(stream), None) => (stream_export(&draft, reader)?, stream.clone()),
        (None, Some(service)) => (service_export(&draft, reader)?, service.clone()),
    };
    check_token_position(&subject, draft.account_token_position.as_ref(), reader);
    let ExportDraft { accounts, account_token_position, .. } = draft;
    Some(Export { at, kind, subject, accounts, account_token_position })
}

fn twice<T>(at: &Position, reader: &mut Reader<'_>) -> Option<T> {
    reader.problem(at, "this is a stream and a service at once", Some("write two entries"));
    None
}

fn neither<T>(at: &Position, reader: &mut Reader<'_>) -> Option<T> {
    reader.problem(at, "there is neither a `stream` nor a `service`", None);
    None
}

fn stream_export(draft: &ExportDraft, reader: &mut Reader<'_>) -> Option<ExportKind> {
    let only_services = [
        ("response_type", draft.response.as_ref().map(|value| &value.at)),
        ("response_threshold", draft.threshold.as_ref().map(|value| &value.at)),
        ("latency", draft.latency.as_ref().map(|value| &value.at)),
        ("allow_trace", draft.allow_trace.as_ref().map(|value| &value.at)),
    ];
    let wrong = only_services.iter().find_map(|(name, at)| at.map(|at| (name, at)));
    if let Some((name, at)) = wrong {
        reader.problem(at, format!("only services have {name}"), None);
        return None;
    }
    Some(ExportKind::Stream)
}

fn service_export(draft: &ExportDraft, reader: &mut Reader<'_>) -> Option<ExportKind> {
    let response = draft.response.as_ref().map(|response| response.value);
    if let Some(latency) = draft.latency.as_ref()
        && response.is_some_and(|response| response != ResponseType::Singleton)
    {
        reader.problem(&latency.at, "only services with one response have a latency", None);
        return None;
    }
    Some(ExportKind::Service {
        response,
        threshold: draft.threshold.clone(),
        latency: draft.latency.clone(),
        allow_trace: draft.allow_trace.as_ref().is_some_and(|allow| **allow),
    })
}

/// The token that names the importing account is a wildcard.
fn check_token_position(subject: &Located<String>, position: Option<&Located<u64>>, reader: &mut Reader<'_>) {
    let Some(position) = position.filter(|position| ***position != 0) else { return };
    let token = usize::try_from(**position).ok().and_then(|position| subject.split('.').nth(position - 1));
    if token != Some("*") {
        reader.problem(&position.at, "the subject has no `*` at this position", None);
    }
}

fn response_type(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<ResponseType>> {
    let text = reader.text(entry)?;
    let kind = match text.to_lowercase().as_str() {
        "single" | "singleton" => ResponseType::Singleton,
        "stream" => ResponseType::Stream,
        "chunk" | "chunked" => ResponseType::Chunked,
        _ => return reader.bad(entry, "no such type", Some("there are singleton, stream and chunked")),
    };
    Some(Located::new(kind, entry.at.clone()))
}

#[derive(Default)]
struct LatencyDraft {
    sampling: Option<Sampling>,
    subject: Option<Located<String>>,
}

const LATENCY_KEYS: &[Key<LatencyDraft>] = &[
    Key { names: &["sampling"], read: |l, e, r| l.sampling = sampling(e, r) },
    Key { names: &["subject"], read: |l, e, r| l.subject = report_subject(e, r) },
];

fn report_subject(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let text = reader.text(entry)?;
    if subject::is_literal(&text) {
        Some(text)
    } else {
        reader.bad(entry, "a subject without wildcards is expected", None)
    }
}

fn sampling(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Sampling> {
    match &entry.value.kind {
        Kind::Text(text) if text.eq_ignore_ascii_case("headers") => Some(Sampling::Headers),
        _ => reader.percent(entry).map(Sampling::Percent),
    }
}

/// A subject, or a block of `subject` and `sampling`.
fn latency(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<Latency>> {
    let before = reader.problems.len();
    let draft = match entry.value.kind {
        Kind::Map(_) => reader.map_into("latency", entry, LATENCY_KEYS)?,
        _ => LatencyDraft { subject: report_subject(entry, reader), sampling: None },
    };
    match draft.subject {
        Some(subject) => {
            let sampling = draft.sampling.unwrap_or(Sampling::Percent(100));
            Some(Located::new(Latency { sampling, subject }, entry.at.clone()))
        }
        None if reader.problems.len() == before => reader.bad(entry, "there is no `subject`", None),
        None => None,
    }
}

/// Account and subject of an import.
#[derive(Default)]
struct SourceDraft {
    account: Option<Located<String>>,
    subject: Option<Located<String>>,
}

const SOURCE_KEYS: &[Key<SourceDraft>] = &[
    Key { names: &["account"], read: |s, e, r| s.account = r.text(e) },
    Key { names: &["subject"], read: |s, e, r| s.subject = import_subject(e, r) },
    Key { names: &["token"], read: |_, e, r| r.unsupported("imports.token", e.at) },
];

#[derive(Default)]
struct ImportDraft {
    stream: Option<SourceDraft>,
    service: Option<SourceDraft>,
    to: Option<Located<String>>,
    prefix: Option<Located<String>>,
    share: bool,
    allow_trace: Option<Located<bool>>,
}

const IMPORT_KEYS: &[Key<ImportDraft>] = &[
    Key { names: &["stream"], read: |i, e, r| i.stream = r.map_into("stream of an import", e, SOURCE_KEYS) },
    Key { names: &["service"], read: |i, e, r| i.service = r.map_into("service of an import", e, SOURCE_KEYS) },
    Key { names: &["to"], read: |i, e, r| i.to = filter(e, r) },
    Key { names: &["prefix"], read: |i, e, r| i.prefix = r.text(e) },
    Key { names: &["share"], read: |i, e, r| i.share = r.bool(e).unwrap_or_default() },
    Key { names: &["allow_trace"], read: |i, e, r| i.allow_trace = r.located_bool(e) },
];

fn import_subject(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let text = filter(entry, reader)?;
    if subject::has_reference(&text) {
        let hint = "write `*` here and `$1` in `to`";
        return reader.bad(entry, "`$1` has no meaning in the exported subject", Some(hint));
    }
    Some(text)
}

pub(super) fn imports(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Import> {
    list(entry, reader).iter().filter_map(|value| import(&Entry { value, ..*entry }, reader)).collect()
}

fn import(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Import> {
    let before = reader.problems.len();
    let ImportDraft { stream, service, to, prefix, share, allow_trace } =
        reader.map_into("an import", entry, IMPORT_KEYS)?;
    if reader.problems.len() != before {
        return None;
    }
    let at = entry.value.at.clone();
    let is_stream = stream.is_some();
    let source = match (stream, service) {
        (Some(_), Some(_)) => return twice(&at, reader),
        (None, None) => return neither(&at, reader),
        (Some(source), None) | (None, Some(source)) => source,
    };
    let SourceDraft { account: Some(account), subject: Some(subject) } = source else {
        reader.problem(&at, "an import needs `account` and `subject`", None);
        return None;
    };
    if let Some(allow) = allow_trace.as_ref().filter(|_| !is_stream) {
        reader.problem(&allow.at, "only streams have allow_trace in an import", None);
    }
    let to = match prefix {
        Some(prefix) if is_stream => prefixed(&prefix, to.as_ref(), &subject, reader)?,
        Some(prefix) => {
            reader.warn(&prefix.at, "the prefix of a service has no effect", Some("write the whole subject as `to`"));
            to
        }
        None => to,
    };
    let kind = if is_stream {
        ImportKind::Stream { allow_trace: allow_trace.is_some_and(|allow| *allow) }
    } else {
        ImportKind::Service { share }
    };
    Some(Import { at, kind, account, subject, to })
}

/// What a prefix makes of a subject. The outer `None` is a problem.
fn prefixed(
    prefix: &Located<String>,
    to: Option<&Located<String>>,
    subject: &str,
    reader: &mut Reader<'_>,
) -> Option<Option<Located<String>>> {
    if to.is_some() {
        reader.problem(&prefix.at, "`prefix` and `to` cannot stand together", None);
        return None;
    }
    let text = prefix.strip_suffix('.').unwrap_or(prefix);
    if !subject::is_literal(text) {
        let message = format!("the prefix {} is not a subject without wildcards", shown(prefix));
        reader.problem(&prefix.at, message, None);
        return None;
    }
    Some(Some(Located::new(format!("{text}.{subject}"), prefix.at.clone())))
}
