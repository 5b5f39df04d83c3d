//! Runs histories: `cargo run --release -p choria-simulation -- --seeds 10000`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use choria_simulation::runner::{Plan, Summary, replay, run_many};

const USAGE: &str = "\
Runs the provisioning flow under deterministic simulation.

usage: choria-simulation [--seeds N] [--from S] [--time-box DURATION] [--jobs N] [--json]
       choria-simulation --seed S [--trace]

  --seeds N            histories to run (default 1000)
  --from S             the first seed (default 0)
  --time-box DURATION  begin no history after this time, such as 90s or 10m
  --jobs N             threads (default 1)
  --json               the summary as one JSON document
  --seed S             one history; exit status 1 when something was violated
  --trace              print it, line by line
";

struct Arguments {
    plan: Plan,
    seed: Option<u64>,
    trace: bool,
    json: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let plan = Plan { from: 0, seeds: 1000, time_box: None, jobs: 1 };
    let mut parsed = Arguments { plan, seed: None, trace: false, json: false };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        match name.as_str() {
            "--seeds" => parsed.plan.seeds = number(value()?)?,
            "--from" => parsed.plan.from = number(value()?)?,
            "--jobs" => parsed.plan.jobs = usize::try_from(number(value()?)?).unwrap_or(1),
            "--seed" => parsed.seed = Some(number(value()?)?),
            "--time-box" => {
                let text = value()?;
                let time =
                    choria_config::duration::parse(&text).map_err(|error| format!("--time-box {text}: {error}"))?;
                parsed.plan.time_box = Some(time);
            }
            "--trace" => parsed.trace = true,
            "--json" => parsed.json = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other:?}, see --help")),
        }
    }
    if parsed.trace && parsed.seed.is_none() {
        return Err("--trace prints one history, name it with --seed".to_owned());
    }
    Ok(Some(parsed))
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return said(io::stdout(), USAGE, ExitCode::SUCCESS),
        Err(error) => return said(io::stderr(), &format!("choria-simulation: {error}\n"), ExitCode::from(2)),
    };
    match arguments.seed {
        Some(seed) => one(seed, arguments.trace),
        None => many(&arguments),
    }
}

/// Writes and gives the status; whoever closed the pipe does not want it.
fn said(mut to: impl Write, text: &str, status: ExitCode) -> ExitCode {
    let _ = to.write_all(text.as_bytes());
    status
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let report = choria_simulation::run(seed, None, trace);
    let mut text = report.history.iter().map(|line| format!("{line}\n")).collect::<String>();
    text += &format!("seed {seed}: {} lines, hash {:016x}\n", report.lines, report.hash);
    match &report.violation {
        None => said(io::stdout(), &text, ExitCode::SUCCESS),
        Some(violation) => said(io::stdout(), &format!("{text}violation: {violation}\n"), ExitCode::FAILURE),
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let (began, told) = (Instant::now(), Mutex::new(Instant::now()));
    let summary = run_many(&arguments.plan, |done, violations| {
        let Ok(mut told) = told.lock() else { return };
        if told.elapsed() >= Duration::from_secs(2) {
            *told = Instant::now();
            let seconds = began.elapsed().as_secs_f64();
            let _ = writeln!(
                io::stderr(),
                "{done} histories in {seconds:.0}s, {:.0} per second, {violations} violations",
                done as f64 / seconds
            );
        }
    });
    let text = if arguments.json { json(&summary) } else { table(&summary) };
    let failed = summary.violations > 0;
    said(io::stdout(), &text, if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(summary: &Summary) -> String {
    let seconds = summary.took.as_secs_f64();
    let mut text = format!(
        "{} histories in {seconds:.1}s ({:.0} per second), {} violations\n",
        summary.histories,
        summary.histories as f64 / seconds.max(f64::EPSILON),
        summary.violations
    );
    for (_, what, count) in summary.stats.rows() {
        text += &format!("{count:>14}  {what}\n");
    }
    for report in &summary.reports {
        let violation = report.violation.as_deref().unwrap_or_default();
        text += &format!("seed {}: {violation}\n    {}\n", report.seed, replay(report.seed));
    }
    text
}

fn json(summary: &Summary) -> String {
    let stats: serde_json::Map<String, serde_json::Value> =
        summary.stats.rows().into_iter().map(|(name, _, count)| (name.to_owned(), count.into())).collect();
    let violations: Vec<serde_json::Value> = summary
        .reports
        .iter()
        .map(|r| serde_json::json!({"seed": r.seed, "violation": r.violation, "replay": replay(r.seed)}))
        .collect();
    let document = serde_json::json!({
        "histories": summary.histories,
        "seconds": summary.took.as_secs_f64(),
        "violations": summary.violations,
        "first_violations": violations,
        "stats": stats,
    });
    format!("{document}\n")
}
