//! Helpers as real processes.

mod pool;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use choria_testkit::{golden, wait_until};

use super::*;
use crate::config::{ProgramHelper, ProgramMode};

const PERSISTENT: ProgramMode = ProgramMode::Persistent { processes: 2, pipeline: 8 };

fn settings(argv: &[&str], mode: ProgramMode) -> ProgramHelper {
    ProgramHelper {
        command: "HELPER".to_owned(),
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        mode,
        timeout: Duration::from_secs(10),
    }
}

fn question(identity: &str) -> Question {
    Question { identity: identity.into(), csr: None, inventory: "{}".to_owned(), jwt: None }
}

/// A shell script in a directory of its own.
struct Script {
    dir: tempfile::TempDir,
    settings: ProgramHelper,
}

impl Script {
    fn new(mode: ProgramMode, text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper");
        fs::write(&path, format!("#!/bin/sh\ncd '{}'\n{text}\n", dir.path().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = settings(&[path.to_str().unwrap()], mode);
        Self { dir, settings }
    }

    fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    fn runner(&self) -> Runner {
        Runner::program(self.settings.clone())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&self) -> (Result<HelperAnswer, HelperError>, RunNotes) {
        split(self.runner().run(&question("n1")).await)
    }
}

fn split(
    outcome: Result<(HelperAnswer, RunNotes), (HelperError, RunNotes)>,
) -> (Result<HelperAnswer, HelperError>, RunNotes) {
    match outcome {
        Ok((answer, notes)) => (Ok(answer), notes),
        Err((error, notes)) => (Err(error), notes),
    }
}

fn is_alive(pid_file: &Path) -> bool {
    let Ok(pid) = fs::read_to_string(pid_file) else { return false };
    // A zombie does not count.
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn the_helper_gets_the_request_and_its_end_and_nothing_else() {
    let script = Script::new(ProgramMode::Process, "cat > got; echo '{\"msg\":\"ok\"}'");
    let (answer, notes) = script.run().await;
    assert_eq!(answer.unwrap().msg, "ok");
    assert_eq!(notes, RunNotes::default());
    assert_eq!(fs::read_to_string(script.file("got")).unwrap(), question("n1").to_text(), "no final newline");
}

#[tokio::test]
async fn a_helper_that_does_not_read_is_fine() {
    let script = Script::new(ProgramMode::Process, "head -c 3 > /dev/null; echo '{\"msg\":\"ok\"}'");
    let long = Question { inventory: "x".repeat(1_000_000), ..question("n1") };
    let (answer, _) = split(script.runner().run(&long).await);
    assert_eq!(answer.unwrap().msg, "ok");
}

#[tokio::test]
async fn arguments_are_handed_over_without_a_shell() {
    let mut helper = settings(&["/bin/echo", "{\"msg\":\"$HOME *\"}"], ProgramMode::Process);
    helper.command = "x".to_owned();
    let (answer, _) = split(Runner::program(helper).run(&question("n1")).await);
    assert_eq!(answer.unwrap().msg, "$HOME *");
}

/// Every row of the golden file that is about one run of a helper, except those that take a while.
#[tokio::test]
async fn golden_helper_cases() {
    // About time, size and processes: the tests below.
    let others = ["deep", "hang", "hang-after-close", "grandchild-keeps-stdout", "grandchild-hang", "output-200MB"];
    let mut ran = 0;
    let dir = tempfile::tempdir().unwrap();
    for row in golden::lines("provisioner/helper-cases.jsonl") {
        let case = golden::member(&row, "case");
        assert_eq!(row.get("output_note").is_some(), others.contains(&case), "{case}");
        // What a node does not answer is no matter of a helper.
        if others.contains(&case) || case == "shutdown-mute" {
            continue;
        }
        ran += 1;
        let file = dir.path().join(case);
        let output = match row.get("output_b64") {
            Some(text) => base64_decode(text.as_str().unwrap()),
            None => golden::member(&row, "output").as_bytes().to_vec(),
        };
        fs::write(&file, output).unwrap();
        let end = match &row["exit"] {
            serde_json::Value::Number(code) => format!("exit {code}"),
            signal => format!("kill -{} $$", signal.as_str().unwrap().trim_start_matches("signal ")),
        };
        let noise = row.get("stderr_bytes").map_or(String::new(), |n| format!("head -c {n} /dev/zero >&2; "));
        let script = format!("cat > /dev/null; {noise}cat '{}'; {end}", file.display());
        let (result, notes) = split(
            Runner::program(settings(&["/bin/sh", "-c", &script], ProgramMode::Process)).run(&question("n1")).await,
        );
        assert!(notes.stderr.len() <= MAX_STDERR);
        let original = row["error"].as_str().and_then(|e| e.strip_prefix("could not invoke configure helper: "));
        match (result, original) {
            // Would reach the node damaged.
            (Err(error), None) if case == "nonutf8key" => assert!(error.to_string().contains("not UTF-8"), "{error}"),
            (Ok(_), None) => {}
            (Err(error), Some(original)) => {
                let ours = error.to_string();
                // What is wrong with JSON is told in the words of our library.
                let fixed = original
                    .split_once("HELPER: ")
                    .filter(|_| original.contains("decode"))
                    .map_or(original, |(head, _)| head);
                assert!(ours.starts_with(fixed), "{case}: {ours}");
            }
            (ours, original) => panic!("{case}: {ours:?} but the original says {original:?}"),
        }
    }
    assert_eq!(ran, 51);
}

fn base64_decode(text: &str) -> Vec<u8> {
    choria_protocol::rpc::decode_payload(text).into_owned()
}

#[test]
fn nested_beyond_reason_is_skipped_or_a_decode_error_and_never_a_crash() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    // The original refuses both; what is skipped has no depth for our reader.
    assert!(HelperAnswer::parse(format!("{{\"unknown\":{deep}}}").as_bytes()).is_ok());
    assert!(HelperAnswer::parse(format!("{{\"configuration\":{deep}}}").as_bytes()).is_err());
}

#[tokio::test]
async fn design6_a_hanging_helper_is_killed_with_its_whole_group_and_the_reason_is_named() {
    let script = Script::new(
        ProgramMode::Process,
        "sh -c 'echo $$ > child; exec sleep 300' & echo $$ > leader; printf '{\"msg\":'; exec sleep 300",
    )
    .timeout(Duration::from_millis(700));
    let (result, _) = script.run().await;
    match result {
        Err(error @ HelperError::TimedOut { received: 7, .. }) => {
            assert!(error.to_string().contains("did not finish within 0.7s and was killed"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    wait_until(Duration::from_secs(5), "the group is gone", || {
        !is_alive(&script.file("leader")) && !is_alive(&script.file("child"))
    });
}

#[tokio::test]
async fn design6_a_grandchild_that_holds_the_output_costs_no_worker() {
    let script = Script::new(
        ProgramMode::Process,
        "sh -c 'echo $$ > child; exec sleep 300' & while [ ! -s child ]; do :; done; echo '{\"msg\":\"ok\"}'; exit 0",
    );
    let began = Instant::now();
    let (result, notes) = script.run().await;
    assert_eq!(result.unwrap().msg, "ok", "the helper itself did everything right");
    assert!(notes.left_behind);
    assert!(began.elapsed() < Duration::from_secs(9), "not until the grandchild ends or the timeout");
    wait_until(Duration::from_secs(5), "the grandchild is gone", || !is_alive(&script.file("child")));
}

#[tokio::test]
async fn golden_hang_after_close_and_grandchild_hang_end_with_the_timeout() {
    let closes = "cat > /dev/null; echo '{\"msg\":\"ok\"}'; exec >&-; echo $$ > leader; exec sleep 300";
    let grandchild = "sh -c 'echo $$ > leader; exec sleep 300' & exec sleep 300";
    for text in [closes, grandchild] {
        let script = Script::new(ProgramMode::Process, text).timeout(Duration::from_millis(700));
        let (result, _) = script.run().await;
        assert!(matches!(result, Err(HelperError::TimedOut { .. })), "{result:?}");
        wait_until(Duration::from_secs(5), "the group is gone", || !is_alive(&script.file("leader")));
    }
}

#[tokio::test]
async fn design6_helper_output_of_a_gigabyte_is_cut_off_and_the_helper_killed() {
    let script = Script::new(ProgramMode::Process, "echo $$ > leader; exec head -c 1000000000 /dev/zero");
    let (result, _) = script.run().await;
    assert_eq!(result.unwrap_err().to_string(), format!("HELPER wrote more than {MAX_OUTPUT} bytes and was killed"));
    wait_until(Duration::from_secs(5), "the helper is gone", || !is_alive(&script.file("leader")));
}

#[tokio::test]
async fn standard_error_is_kept_but_bounded() {
    let script = Script::new(ProgramMode::Process, "head -c 1000000 /dev/zero | tr '\\0' e >&2; echo oops >&2; exit 4");
    let (result, notes) = script.run().await;
    assert_eq!(result.unwrap_err().to_string(), "cannot read HELPER output: zero bytes received (exit status 4)");
    assert_eq!(notes.stderr.len(), MAX_STDERR);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named() {
    let (result, _) =
        split(Runner::program(settings(&["/nonexistent/h"], ProgramMode::Process)).run(&question("n1")).await);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("cannot start HELPER: /nonexistent/h: "), "{error}");
}

#[tokio::test]
async fn dropping_a_run_kills_its_process() {
    let script = Script::new(ProgramMode::Process, "echo $$ > leader; exec sleep 300");
    let runner = script.runner();
    let leader = script.file("leader");
    let run = tokio::spawn(async move { runner.run(&question("n1")).await.is_ok() });
    choria_testkit::wait_until_async(Duration::from_secs(5), "it runs", async || is_alive(&leader)).await;
    run.abort();
    choria_testkit::wait_until_async(Duration::from_secs(5), "it is gone", async || !is_alive(&leader)).await;
}
