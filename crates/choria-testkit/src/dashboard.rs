//! Reading `dashboards/*.json`, so that each program can check that it has the metrics which its dashboard shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// A metric as an expression of a dashboard uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Name of the series, such as `choria_provisioner_rpc_time_sum`.
    pub metric: String,
    /// Labels that it is selected, grouped or named by.
    pub labels: BTreeSet<String>,
    /// Title of the panel, or name of the variable.
    pub place: String,
}

/// What all panels and variables of a dashboard of this repository use.
///
/// # Panics
/// When there is no such file, it is no dashboard, or an expression is not understood.
pub fn used(file: &str) -> Vec<Used> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let dashboard: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("a dashboard has panels") {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("every target has an expression");
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            found.extend(metrics(expression, legend, title));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default();
        if let Some(query) = variable["query"]["query"].as_str() {
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) = inner.and_then(|inner| inner.split_once(", ")).expect("label_values(metric, label)");
            let labels = BTreeSet::from([label.to_owned()]);
            found.push(Used { metric: metric.to_owned(), labels, place: name.to_owned() });
        }
    }
    assert!(!found.is_empty(), "{file} shows nothing");
    found
}

/// Metrics of one expression. Labels of `by (…)` and of the legend belong to each of its metrics.
fn metrics(expression: &str, legend: &str, place: &str) -> Vec<Used> {
    let mut grouping: BTreeSet<String> = legend
        .split("{{")
        .skip(1)
        .filter_map(|part| part.split_once("}}"))
        .map(|(label, _)| label.trim().to_owned())
        .collect();
    let mut rest = expression;
    while let Some((_, after)) = rest.split_once("by (") {
        let (labels, end) = after.split_once(')').expect("by (…) is closed");
        grouping.extend(labels.split(',').map(|label| label.trim().to_owned()));
        rest = end;
    }
    let mut used = Vec::new();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| word(c)) {
        let end = rest[start..].find(|c: char| !word(c)).map_or(rest.len(), |length| start + length);
        let (name, after) = (&rest[start..end], &rest[end..]);
        rest = after;
        if !(name.starts_with("choria_") || name.starts_with("process_")) {
            // Skip the contents of selectors and ranges: their words are no metrics.
            if let Some(quoted) = after.strip_prefix("=~\"").or_else(|| after.strip_prefix("=\"")) {
                rest = quoted.split_once('"').map_or("", |(_, behind)| behind);
            }
            continue;
        }
        let mut labels = grouping.clone();
        if let Some(selector) = after.strip_prefix('{') {
            let (selector, behind) = selector.split_once('}').expect("a selector is closed");
            labels.extend(
                selector.split(',').filter_map(|part| part.split(['=', '!']).next()).map(|l| l.trim().to_owned()),
            );
            rest = behind;
        }
        used.push(Used { metric: name.to_owned(), labels, place: place.to_owned() });
    }
    used
}

/// Series of a Prometheus page: names and their labels.
pub fn series(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.split_once('}').map_or("", |(labels, _)| labels)),
            None => (line.split(' ').next().unwrap_or_default(), ""),
        };
        let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
        series.entry(name.to_owned()).or_default().extend(names);
    }
    series
}

/// Panics with the first use that a page has no series for.
///
/// # Panics
/// See above.
pub fn assert_shown(used: &[Used], page: &str) {
    let series = series(page);
    for Used { metric, labels, place } in used {
        let Some(has) = series.get(metric) else { panic!("panel {place:?} uses {metric}, which does not exist") };
        let missing: Vec<&String> = labels.difference(has).collect();
        assert!(missing.is_empty(), "panel {place:?} uses labels {missing:?} of {metric}, which has {has:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_labels_are_found_in_expressions() {
        let expression =
            "sum by (le, phase) (rate(choria_a_bucket{site=~\"$x\", phase!=\"b, c\"}[5m])) / max (choria_b)";
        let used = metrics(expression, "{{phase}} {{rpc}}", "p");
        let of = |labels: &[&str]| labels.iter().map(|l| (*l).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(used.len(), 2);
        assert_eq!(used[0].metric, "choria_a_bucket");
        assert!(used[0].labels.is_superset(&of(&["le", "phase", "rpc", "site"])), "{used:?}");
        assert_eq!((&*used[1].metric, &used[1].labels), ("choria_b", &of(&["le", "phase", "rpc"])));
    }

    #[test]
    #[should_panic(expected = "does not exist")]
    fn a_metric_that_does_not_exist_is_noticed() {
        assert_shown(&metrics("choria_no", "", "p"), "choria_a 1\n");
    }

    #[test]
    #[should_panic(expected = "uses labels")]
    fn a_label_that_does_not_exist_is_noticed() {
        assert_shown(&metrics("choria_a{b=\"c\"}", "", "p"), "choria_a{d=\"e\"} 1\n");
    }
}
