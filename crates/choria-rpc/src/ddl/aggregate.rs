//! Summaries over the replies of a request (spec 05 §5.4).

use std::collections::{BTreeMap, HashMap};

use choria_protocol::json::value_text;
use serde_json::{Map, Number, Value, json};

use crate::ddl::printf::{Arg, printf};
use crate::ddl::{Action, chart};

/// Different values that one summary counts; further ones are counted together, so that a fleet of unique values does
/// not take memory without end.
const MAX_VALUES: usize = 100_000;

/// What further values are counted as.
const OTHERS: &str = "(other values)";

/// Numbers that one chart or average keeps.
const MAX_NUMBERS: usize = 1_000_000;

/// All summaries of an action, fed with replies one by one.
#[derive(Debug, Clone)]
pub struct Aggregates {
    /// By output name; of several for one output the last counts.
    outputs: BTreeMap<String, Summary>,
}

#[derive(Debug, Clone)]
struct Summary {
    format: Option<String>,
    /// Shown text by raw value.
    names: HashMap<String, String>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Counts(HashMap<String, usize>),
    Average { sum: f64, count: usize },
    Chart(Vec<f64>),
}

impl Aggregates {
    /// The summaries that an action's DDL asks for. Functions that do not exist are left out.
    pub fn new(action: &Action) -> Self {
        let mut outputs = BTreeMap::new();
        for aggregate in &action.aggregate {
            let state = match aggregate.function.as_str() {
                "summary" | "boolean_summary" => State::Counts(HashMap::new()),
                "average" => State::Average { sum: 0.0, count: 0 },
                "chart" => State::Chart(Vec::new()),
                other => {
                    tracing::debug!("aggregate function {other:?} of {} is not known", action.name);
                    continue;
                }
            };
            let Some(output) = aggregate.args.first().and_then(Value::as_str) else { continue };
            let mut summary = Summary { format: None, names: HashMap::new(), state };
            for (key, value) in aggregate.args.get(1).and_then(Value::as_object).into_iter().flatten() {
                let text = text_of(value);
                if key == "format" {
                    summary.format = Some(text);
                } else {
                    summary.names.insert(key.clone(), text);
                }
            }
            outputs.insert(output.to_owned(), summary);
        }
        Self { outputs }
    }

    /// Whether there is nothing to summarize.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Adds one reply's data, output defaults filled in.
    pub fn add(&mut self, data: &Map<String, Value>) {
        for (output, summary) in &mut self.outputs {
            if let Some(value) = data.get(output) {
                summary.add(value);
            }
        }
    }

    /// The summaries so far, by output name.
    pub fn results(&self) -> Vec<(String, AggregateResult)> {
        self.outputs.iter().map(|(output, summary)| (output.clone(), summary.result())).collect()
    }

    /// All summaries as the JSON object of `--json`.
    pub fn to_json(&self) -> Value {
        Value::Object(self.results().into_iter().map(|(output, result)| (output, result.to_json())).collect())
    }
}

impl Summary {
    fn add(&mut self, value: &Value) {
        match &mut self.state {
            // Lists are counted item by item in no version of the original: the whole value is one.
            State::Counts(counts) => {
                let mut text = text_of(value);
                if let Some(name) = self.names.get(&text) {
                    text.clone_from(name);
                }
                if counts.len() >= MAX_VALUES && !counts.contains_key(&text) {
                    OTHERS.clone_into(&mut text);
                }
                *counts.entry(text).or_default() += 1;
            }
            State::Average { sum, count } => {
                if let Some(number) = number_of(value) {
                    *sum += number;
                    *count += 1;
                }
            }
            State::Chart(numbers) => {
                if let Some(number) = number_of(value).filter(|_| numbers.len() < MAX_NUMBERS) {
                    numbers.push(number);
                }
            }
        }
    }

    fn result(&self) -> AggregateResult {
        match &self.state {
            State::Counts(counts) => {
                let mut counts: Vec<(String, usize)> =
                    counts.iter().map(|(value, count)| (value.clone(), *count)).collect();
                counts.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
                AggregateResult::Counts { counts, format: self.format.clone() }
            }
            State::Average { sum, count } => {
                #[expect(clippy::cast_precision_loss, reason = "counts of replies are small")]
                let average = if *count == 0 { 0.0 } else { sum / *count as f64 };
                AggregateResult::Average { average, format: self.format.clone() }
            }
            State::Chart(numbers) => AggregateResult::Chart(chart::plot(numbers)),
        }
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => value_text(other),
    }
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// One summary.
#[derive(Debug, Clone, PartialEq)]
pub enum AggregateResult {
    /// How often each value came, most frequent first, then by value.
    Counts {
        /// Values and counts.
        counts: Vec<(String, usize)>,
        /// Format of a line, given value and count.
        format: Option<String>,
    },
    /// The mean of all numbers.
    Average {
        /// 0 when there were none.
        average: f64,
        /// Format of the line, given the number.
        format: Option<String>,
    },
    /// A line plot.
    Chart(String),
}

impl AggregateResult {
    /// As `--json` shows it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Counts { counts, .. } => {
                let mut sorted: Vec<_> = counts.iter().collect();
                sorted.sort();
                Value::Object(sorted.into_iter().map(|(value, count)| (value.clone(), json!(count))).collect())
            }
            Self::Average { average, .. } => {
                json!({"average": Number::from_f64(*average).map_or(Value::Null, Value::Number)})
            }
            Self::Chart(text) => json!({"chart": text}),
        }
    }

    /// As lines for people; none when nothing was received.
    pub fn to_lines(&self) -> Vec<String> {
        match self {
            Self::Counts { counts, format } => {
                let width = counts.iter().map(|(value, _)| value.chars().count()).max().unwrap_or(0);
                let line = |(value, count): &(String, usize)| match format {
                    Some(format) => printf(format, &[Arg::Text(value), Arg::Count(*count)]),
                    None => format!("{value:>width$}: {count}"),
                };
                counts.iter().map(line).collect()
            }
            Self::Average { average, format } => {
                vec![printf(format.as_deref().unwrap_or("Average: %.3f"), &[Arg::Float(*average)])]
            }
            Self::Chart(text) => text.lines().map(str::to_owned).collect(),
        }
    }
}
