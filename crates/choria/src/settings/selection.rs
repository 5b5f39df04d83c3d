//! How the nodes of a request are found (spec 05 §4): the first rule that fits wins.

use std::io::{IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_client::nodes::{self, Format};
use choria_client::{Broadcast, Wait};
use choria_config::{Config, DiscoveryMethod, keys};
use choria_protocol::filter::Filter;

use crate::cli::{FilterArgs, Method, SelectionArgs};
use crate::exit::Failure;

/// Largest document that is read from stdin.
const MAX_STDIN: u64 = 256 * 1024 * 1024;

/// Where the nodes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The network.
    Broadcast,
    /// A file.
    File {
        /// Its path; `-` is stdin.
        path: PathBuf,
        /// How it is written.
        format: Format,
        /// GJSON path of the list inside.
        query: Option<String>,
    },
    /// The result document of an earlier request on stdin.
    Chained(String),
}

impl Source {
    /// The name of the method, as in `using the NAME method`.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Broadcast => "mc",
            Self::File { .. } | Self::Chained(_) => "flatfile",
        }
    }

    /// The nodes, when no network is needed to know them.
    pub(crate) fn read_without_network(&self) -> Result<Option<Vec<String>>, Failure> {
        match self {
            Self::Broadcast => Ok(None),
            Self::Chained(text) => Ok(Some(nodes::parse(text, Format::Results, None)?)),
            Self::File { path, format, query } if path == Path::new("-") => {
                Ok(Some(nodes::parse(&read_stdin()?, *format, query.as_deref())?))
            }
            Self::File { path, format, query } => Ok(Some(nodes::read(path, *format, query.as_deref())?)),
        }
    }
}

/// Chooses the source.
pub(crate) fn choose(args: &SelectionArgs, filters: &FilterArgs) -> Result<Source, Failure> {
    let option = |name: &str| {
        filters.discovery_options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    if let Some(path) = &args.nodes {
        let format = option("format").map_or_else(|| Format::of_path(path), |name| Format::of_name(&name));
        return Ok(Source::File { path: path.clone(), format, query: option("filter") });
    }
    if filters.select.as_deref().is_some_and(|expression| !expression.is_empty()) {
        return Ok(Source::Broadcast);
    }
    match args.method {
        Some(Method::Mc) => Ok(Source::Broadcast),
        Some(Method::Flatfile) => {
            let path = option("file").ok_or_else(|| {
                Failure::new("could not determine file to use as discovery source")
                    .hint("--nodes FILE, or --dm flatfile --do file=FILE")
            })?;
            let format = option("format").map_or(Format::Text, |name| Format::of_name(&name));
            Ok(Source::File { path: path.into(), format, query: option("filter") })
        }
        None => Ok(match piped_results()? {
            Some(text) => Source::Chained(text),
            None => Source::Broadcast,
        }),
    }
}

/// The question that broadcast discovery asks.
///
/// # Errors
/// When the configuration names a method that this version does not have: the network would answer with other nodes
/// than the one that was meant.
pub(crate) fn broadcast(
    args: &SelectionArgs,
    filters: &FilterArgs,
    filter: Filter,
    config: &Config,
) -> Result<Broadcast, Failure> {
    let configured = config.get(&keys::DEFAULT_DISCOVERY_METHOD);
    // An expression can only be judged by the nodes themselves, whatever the method.
    let chosen = args.method.is_some() || filters.select.as_deref().is_some_and(|expression| !expression.is_empty());
    if !chosen && !matches!(configured, DiscoveryMethod::Mc | DiscoveryMethod::Broadcast) {
        let name = keys::DEFAULT_DISCOVERY_METHOD.name();
        return Err(Failure::new(format!("{name} = {configured} is set, and this version has no such method"))
            .hint("--dm mc asks the network, --nodes FILE reads a list"));
    }
    let timeout = match args.discovery_timeout.and_then(|seconds| u64::try_from(seconds).ok()) {
        None | Some(0) => config.get(&keys::DISCOVERY_TIMEOUT),
        Some(seconds) => Duration::from_secs(seconds),
    };
    let sliding = args.discovery_window || config.get(&keys::DISCOVERY_BROADCAST_WINDOWED_TIMEOUT);
    Ok(Broadcast {
        filter,
        collective: filters.target.clone(),
        wait: if sliding { Wait::sliding(timeout) } else { Wait::fixed(timeout) },
        expect: None,
    })
}

/// The result document of an earlier request, when one is piped in. Only pipes and files are looked at, and only up to the
/// first byte that is not the beginning of such a document: under cron, systemd or CI stdin may be anything.
fn piped_results() -> Result<Option<String>, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() || !carries_data() {
        return Ok(None);
    }
    let text = read_stdin()?;
    Ok(nodes::looks_like_results(&text).then_some(text))
}

/// Whether stdin is a pipe or a file; `/dev/null`, sockets and the like are not read.
fn carries_data() -> bool {
    if std::env::var_os(crate::process::EXIT_WITH_STDIN).is_some() {
        return false;
    }
    std::fs::metadata("/dev/stdin").is_ok_and(|stdin| stdin.is_file() || stdin.file_type().is_fifo())
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use choria_config::{Environment, Mode};

    use super::*;

    #[test]
    fn a_configured_method_that_is_missing_is_told_and_not_replaced() {
        let config = |text: &str| Config::from_text(text, Mode::Client, &Environment::fixed("ws1")).unwrap();
        let ask = |args: &SelectionArgs, select: Option<&str>, text: &str| {
            let filters = FilterArgs { select: select.map(str::to_owned), ..FilterArgs::default() };
            broadcast(args, &filters, Filter::default(), &config(text)).map(|_| ()).map_err(|error| error.to_string())
        };
        let puppetdb = "default_discovery_method = puppetdb\n";
        let (plain, mc) =
            (SelectionArgs::default(), SelectionArgs { method: Some(Method::Mc), ..SelectionArgs::default() });
        let refused = ask(&plain, None, puppetdb);
        assert!(
            refused.as_ref().is_err_and(|text| text.contains("default_discovery_method = puppetdb")),
            "{refused:?}"
        );
        assert_eq!(ask(&mc, None, puppetdb), Ok(()));
        assert_eq!(ask(&plain, Some("with('a')"), puppetdb), Ok(()));
        assert_eq!(ask(&plain, None, "default_discovery_method = broadcast\n"), Ok(()));
    }
}
