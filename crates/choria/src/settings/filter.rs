//! Filter flags to a filter (spec 05 §3). Everything is checked before anything is sent.

use choria_filter::FilterMatcher;
use choria_protocol::filter::{Filter, parse_fact};

use crate::cli::FilterArgs;
use crate::exit::Failure;

/// Builds the filter that travels with a request; `agent` is the agent that will be asked. Empty values count as absent.
pub(crate) fn build(args: &FilterArgs, agent: Option<&str>) -> Result<Filter, Failure> {
    let mut filter = Filter::default();
    for fact in given(&args.facts) {
        filter.add_fact(parse_fact(fact).map_err(|error| refused(&error))?);
    }
    given(&args.agents).for_each(|name| filter.add_agent(name));
    given(&args.classes).for_each(|name| filter.add_class(name));
    given(&args.identities).for_each(|name| filter.add_identity(name));
    for text in given(&args.combined) {
        filter.add_mixed(text).map_err(|error| refused(&error))?;
    }
    given(args.select.as_slice()).for_each(|expression| filter.add_compound(expression));
    if let Some(agent) = agent {
        filter.add_agent(agent);
    }
    // Nodes would only log a pattern or expression that does not compile, and it would look like "nobody matches".
    FilterMatcher::check(&filter).map_err(|error| refused(&error))?;
    Ok(filter)
}

fn given(values: &[String]) -> impl Iterator<Item = &str> {
    values.iter().map(String::as_str).filter(|value| !value.is_empty())
}

fn refused(error: &dyn std::error::Error) -> Failure {
    Failure::from_error(error).context("could not parse filters")
}
