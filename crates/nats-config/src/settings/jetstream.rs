//! The block `jetstream`.

use std::time::Duration;

use super::Limit;
use crate::Located;

/// What the file says of streams; the program decides what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JetStream {
    /// Streams are wanted: `jetstream: true`, or a block that does not say otherwise.
    pub enabled: bool,
    /// `store_dir` or `storedir`
    pub store_dir: Option<Located<String>>,
    /// `max_memory_store` or `max_mem_store` in bytes
    pub max_memory_store: Option<Located<Limit>>,
    /// `max_file_store` or `max_file` in bytes
    pub max_file_store: Option<Located<Limit>>,
    /// `domain`
    pub domain: Option<Located<String>>,
    /// `sync_interval`
    pub sync_interval: Option<Located<SyncInterval>>,
    /// `strict`
    pub strict: Option<bool>,
    /// `unique_tag`
    pub unique_tag: Option<Located<String>>,
}

/// When written data is brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncInterval {
    /// `always`: with every write.
    Always,
    /// Every so often.
    Every(Duration),
}

/// `jetstream` of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountJetStream {
    /// Streams are wanted.
    pub enabled: bool,
    /// `max_memory` or `max_mem` in bytes
    pub max_memory: Option<Located<Limit>>,
    /// `max_file` or `max_disk` in bytes
    pub max_file: Option<Located<Limit>>,
    /// `max_streams`
    pub max_streams: Option<Located<Limit>>,
    /// `max_consumers`
    pub max_consumers: Option<Located<Limit>>,
}
