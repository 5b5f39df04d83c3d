//! `choria discover` (spec 05 §8).

use std::io::Write;

use crate::cli::DiscoverArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::settings::{ClientSettings, filter, selection};
use crate::text::{go_millis, waiting};

/// Runs the command.
pub(crate) fn run(args: &DiscoverArgs, debug: bool) -> Outcome {
    let filter = filter::build(&args.filter, Some("rpcutil"))?;
    let source = selection::choose(&args.selection, &args.filter)?;
    let (nodes, took, assumed) = match source.read_without_network()? {
        Some(nodes) => (nodes, std::time::Duration::ZERO, false),
        None => {
            let settings = ClientSettings::load(&args.connection, debug)?;
            let request = selection::broadcast(&args.selection, &args.filter, filter, &settings.config)?;
            let found = match request.assumed() {
                Some(found) => found,
                None => {
                    let waiting = (!args.silent).then(|| waiting("discovering nodes"));
                    let found = settings.run(async |client| Ok::<_, Failure>(client.discover(&request).await?));
                    if let Some(waiting) = waiting {
                        waiting.finish_and_clear();
                    }
                    found?
                }
            };
            (found.nodes, found.took, found.assumed)
        }
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &nodes)?;
        writeln!(out)?;
    } else {
        for node in &nodes {
            writeln!(out, "{node}")?;
        }
    }
    if args.verbose {
        let method = source.method();
        writeln!(
            std::io::stderr(),
            "Discovered {} nodes using the {method} method in {}",
            nodes.len(),
            go_millis(took)
        )?;
        if assumed {
            writeln!(std::io::stderr(), "The names were taken from the filter without asking the network.")?;
        }
    }
    if nodes.is_empty() {
        return Err(Failure::new("did not discover any nodes"));
    }
    Ok(Exit::Ok)
}
