//! How many files, and so sockets, this process may have open.

/// Descriptors beside those of connections: listeners, logs, the runtime, what the embedder opens.
const OTHERS: u64 = 64;

/// The number of files that this process may have open; `None` where the system does not say. Every connection is one.
/// [`crate::Broker::start`] raises it as far as it may be raised.
pub fn descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
    }
    #[cfg(not(unix))]
    None
}

/// Raises the limit to what this process may have, and warns when `max_connections` do not fit into it.
pub(crate) fn prepare(max_connections: usize) {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard
            && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        {
            tracing::debug!(%error, soft, hard, "cannot raise the limit of open files");
        }
    }
    if let Some(limit) = descriptor_limit()
        && let Some(warning) = shortage(limit, max_connections)
    {
        tracing::warn!("{warning}");
    }
}

/// Whether an error says that this process, or the machine, can open no more files.
pub(crate) fn are_used_up(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    {
        use nix::errno::Errno;
        let used_up = [Errno::EMFILE as i32, Errno::ENFILE as i32];
        error.raw_os_error().is_some_and(|number| used_up.contains(&number))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// What to tell when so many connections do not fit into a limit.
fn shortage(limit: u64, max_connections: usize) -> Option<String> {
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    (limit < wanted).then(|| {
        format!(
            "max_connections is {max_connections}, but this process may open only {limit} files, enough for about {} \
             connections; raise the limit to {wanted} (ulimit -n {wanted}, or LimitNOFILE={wanted} in the systemd unit) or \
             lower max_connections",
            limit.saturating_sub(OTHERS)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_told_with_the_way_out() {
        assert_eq!(shortage(1064, 1000), None);
        let warning = shortage(1024, 1000).unwrap();
        for part in ["only 1024 files", "about 960 connections", "ulimit -n 1064", "LimitNOFILE=1064"] {
            assert!(warning.contains(part), "{warning}");
        }
        assert!(shortage(1024, usize::MAX).is_some());
    }
}
