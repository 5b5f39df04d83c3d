//! `jetstream` of the broker and of accounts: kept, not acted upon.

use super::{Entry, Key, Reader};
use crate::Located;
use crate::settings::{AccountJetStream, JetStream, Limit, Settings, SyncInterval};
use crate::value::{Kind, Value};
use crate::{bare, duration};

const KEYS: &[Key<JetStream>] = &[
    Key { names: &["enabled", "enable"], read: |j, e, r| j.enabled = r.bool(e).unwrap_or_default() },
    Key { names: &["store_dir", "storedir", "store"], read: |j, e, r| j.store_dir = r.text(e) },
    Key { names: &["max_memory_store", "max_mem_store", "max_mem"], read: |j, e, r| j.max_memory_store = size(e, r) },
    Key { names: &["max_file_store", "max_file"], read: |j, e, r| j.max_file_store = size(e, r) },
    Key { names: &["domain"], read: |j, e, r| j.domain = r.text(e) },
    Key { names: &["sync_interval", "sync"], read: |j, e, r| j.sync_interval = sync_interval(e, r) },
    Key { names: &["strict"], read: |j, e, r| j.strict = r.bool(e) },
    Key { names: &["unique_tag"], read: |j, e, r| j.unique_tag = r.text(e) },
    // Data that is expected to be encrypted must not be written in clear text.
    Key { names: &["key", "ek", "encryption_key"], read: |_, e, r| r.unsupported("jetstream.key", e.at) },
    Key {
        names: &["prev_key", "prev_ek", "prev_encryption_key"],
        read: |_, e, r| r.unsupported("jetstream.prev_key", e.at),
    },
    Key { names: &["cipher"], read: |_, e, r| r.unsupported("jetstream.cipher", e.at) },
    Key { names: &["tpm"], read: |_, e, r| r.unsupported("jetstream.tpm", e.at) },
    Key { names: &["extension_hint"], read: super::top::no_effect },
    Key { names: &["limits"], read: super::top::no_effect },
    Key { names: &["max_outstanding_catchup"], read: super::top::no_effect },
    Key { names: &["max_buffered_size"], read: super::top::no_effect },
    Key { names: &["max_buffered_msgs"], read: super::top::no_effect },
    Key { names: &["request_queue_limit"], read: super::top::no_effect },
    Key { names: &["info_queue_limit"], read: super::top::no_effect },
    Key { names: &["meta_compact"], read: super::top::no_effect },
    Key { names: &["meta_compact_size"], read: super::top::no_effect },
    Key { names: &["meta_compact_sync"], read: super::top::no_effect },
];

const ACCOUNT_KEYS: &[Key<AccountJetStream>] = &[
    Key { names: &["max_memory", "max_mem", "memory", "mem"], read: |j, e, r| j.max_memory = r.limit(e) },
    Key { names: &["max_file", "max_disk", "max_store", "store", "disk"], read: |j, e, r| j.max_file = r.limit(e) },
    Key { names: &["max_streams", "streams"], read: |j, e, r| j.max_streams = r.limit(e) },
    Key { names: &["max_consumers", "consumers"], read: |j, e, r| j.max_consumers = r.limit(e) },
    Key { names: &["max_bytes_required", "max_stream_bytes"], read: super::top::no_effect },
    Key { names: &["mem_max_stream_bytes", "memory_max_stream_bytes"], read: super::top::no_effect },
    Key { names: &["disk_max_stream_bytes", "store_max_stream_bytes"], read: super::top::no_effect },
    Key { names: &["max_ack_pending"], read: super::top::no_effect },
    Key { names: &["cluster_traffic"], read: super::top::no_effect },
];

pub(super) fn read(settings: &mut Settings, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    // The directory may stand outside, too.
    let outside = settings.jetstream.take().and_then(|jetstream| jetstream.value.store_dir);
    let mut jetstream = JetStream { enabled: true, ..JetStream::default() };
    match switch(entry, reader) {
        Some(Some(enabled)) => jetstream.enabled = enabled,
        Some(None) => {
            let pairs = reader.map(entry).unwrap_or_default();
            reader.block("jetstream", pairs, KEYS, &mut jetstream);
        }
        None => return,
    }
    jetstream.store_dir = jetstream.store_dir.or(outside);
    settings.jetstream = Some(Located::new(jetstream, entry.at.clone()));
}

/// `store_dir` outside of the block says where, not whether.
pub(super) fn store_dir(settings: &mut Settings, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    let Some(directory) = reader.text(entry) else { return };
    let default = || Located::new(JetStream::default(), entry.at.clone());
    settings.jetstream.get_or_insert_with(default).value.store_dir.get_or_insert(directory);
}

pub(super) fn read_account(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<AccountJetStream>> {
    let mut jetstream = AccountJetStream { enabled: true, ..AccountJetStream::default() };
    match switch(entry, reader)? {
        Some(enabled) => jetstream.enabled = enabled,
        None => {
            let pairs = reader.map(entry).unwrap_or_default();
            reader.block("jetstream of an account", pairs, ACCOUNT_KEYS, &mut jetstream);
        }
    }
    Some(Located::new(jetstream, entry.at.clone()))
}

/// On or off as a truth value or a word; the inner `None` is a block, the outer one a problem.
#[expect(clippy::option_option, reason = "a problem is neither on, off nor a block")]
fn switch(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Option<bool>> {
    match &entry.value.kind {
        Kind::Map(_) => Some(None),
        Kind::Bool(enabled) => Some(Some(*enabled)),
        Kind::Text(text) => match text.to_lowercase().as_str() {
            "enabled" | "enable" => Some(Some(true)),
            "disabled" | "disable" => Some(Some(false)),
            _ => reader.bad(entry, "expected enabled, disabled, or a block", None),
        },
        _ => reader.wrong(entry, "true, false, enabled, disabled, or a block", None),
    }
}

/// A size; here, and only here, it may be in quotes.
fn size(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<Limit>> {
    let Kind::Text(text) = &entry.value.kind else {
        return reader.limit(entry);
    };
    match bare::classify(text.trim()) {
        Ok(kind @ Kind::Integer { .. }) => {
            let value = Value::plain(entry.value.at.clone(), kind);
            reader.limit(&Entry { value: &value, ..*entry })
        }
        _ => reader.bad(entry, "expected a size such as 1GB", None),
    }
}

fn sync_interval(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<SyncInterval>> {
    match &entry.value.kind {
        Kind::Text(text) if text.eq_ignore_ascii_case("always") => {
            Some(Located::new(SyncInterval::Always, entry.value.at.clone()))
        }
        Kind::Text(text) if duration::parse(text) == Ok(0) => reader.bad(entry, "the interval must not be zero", None),
        _ => reader.duration(entry).map(|every| Located::new(SyncInterval::Every(every.value), every.at)),
    }
}
