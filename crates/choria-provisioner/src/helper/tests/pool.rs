//! Long-lived helpers as real processes.

use std::collections::BTreeSet;
use std::fs;

use super::*;

/// A persistent helper that answers each line with its own process id and the request.
const ECHO: &str = "while read -r line; do echo started >> lines; echo \"{\\\"msg\\\":\\\"$$\\\"}\"; done";

#[tokio::test]
async fn a_pool_answers_many_requests_with_few_processes() {
    let script = Script::new(PERSISTENT, ECHO);
    let runner = script.runner();
    let mut pids = BTreeSet::new();
    let runs: Vec<_> = (0..50)
        .map(|_| {
            let runner = runner.clone();
            tokio::spawn(async move { runner.run(&question("n1")).await.unwrap().0.msg })
        })
        .collect();
    for run in runs {
        pids.insert(run.await.unwrap());
    }
    assert!((1..=2).contains(&pids.len()), "{pids:?}");
    assert_eq!(fs::read_to_string(script.file("lines")).unwrap().lines().count(), 50);
    runner.close().await;
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} was ended with the pool");
    }
    assert!(runner.run(&question("n1")).await.is_err(), "a closed pool answers nothing");
}

#[tokio::test]
async fn a_crash_costs_the_request_one_retry_and_the_pool_heals() {
    // Every process ends over its second request.
    let script =
        Script::new(PERSISTENT, "read -r line; echo '{\"msg\":\"one\"}'; read -r line; echo 'giving up' >&2; exit 7");
    let runner = script.runner();
    for _ in 0..6 {
        let (answer, _) = split(runner.run(&question("n1")).await);
        assert_eq!(answer.unwrap().msg, "one");
    }
}

#[tokio::test]
async fn a_helper_that_always_crashes_is_named_and_not_restarted_in_a_loop() {
    let script = Script::new(PERSISTENT, "echo x >> starts; read -r line; exit 7");
    let runner = script.runner();
    let (result, _) = split(runner.run(&question("n1")).await);
    assert_eq!(result.unwrap_err().to_string(), "HELPER ended while it had a request: exit status 7");
    assert_eq!(fs::read_to_string(script.file("starts")).unwrap().lines().count(), 2, "one try and one retry");
}

#[tokio::test]
async fn a_persistent_helper_that_hangs_is_killed_and_replaced() {
    let script = Script::new(
        PERSISTENT,
        "echo $$ >> pids; while read -r line; do if [ -e once ]; then echo '{\"msg\":\"ok\"}'; else touch once; sleep 300; fi; done",
    )
    .timeout(Duration::from_millis(700));
    let runner = script.runner();
    let (result, _) = split(runner.run(&question("n1")).await);
    assert!(matches!(result, Err(HelperError::TimedOut { .. })), "{result:?}");
    let (result, _) = split(runner.run(&question("n1")).await);
    assert_eq!(result.unwrap().msg, "ok");
}

#[tokio::test]
async fn an_answer_never_reaches_the_wrong_node() {
    // Two lines for one request would shift every later answer by one.
    let two = Script::new(PERSISTENT, "while read -r line; do printf '{\"msg\":\"a\"}\\n{\"msg\":\"b\"}\\n'; done");
    let (result, _) = two.run().await;
    assert_eq!(result.unwrap_err().to_string(), "HELPER wrote more than one line for one request");
    let late = Script::new(
        PERSISTENT,
        "while read -r line; do echo '{\"msg\":\"ok\"}'; echo '{\"msg\":\"late\"}'; touch late; done",
    );
    let runner = late.runner();
    for _ in 0..6 {
        let _ = fs::remove_file(late.file("late"));
        // Both lines at once are an error, and the process is replaced.
        let (Ok(answer), _) = split(runner.run(&question("n1")).await) else { continue };
        assert_eq!(answer.msg, "ok", "a process that spoke unasked is not asked again");
        wait_until(Duration::from_secs(5), "the second line is written", || late.file("late").exists());
    }
    let wrong =
        Script::new(PERSISTENT, "while read -r line; do echo '{\"identity\":\"n2\",\"msg\":\"for another\"}'; done");
    let (result, _) = split(wrong.runner().run(&question("n1")).await);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("answered for \"n2\" when it was asked about \"n1\""), "{error}");
}

#[tokio::test]
async fn a_persistent_helper_that_never_ends_its_line_is_cut_off() {
    let script = Script::new(PERSISTENT, "read -r line; exec head -c 1000000000 /dev/zero");
    let (result, _) = script.run().await;
    assert!(matches!(result, Err(HelperError::TooMuchOutput { .. })), "{result:?}");
    let half = Script::new(PERSISTENT, "while read -r line; do echo '{\"configuration\":'; done");
    let (result, _) = half.run().await;
    assert!(matches!(result, Err(HelperError::Decode { .. })), "{result:?}");
}

/// A helper in Python that names its nodes: `answer` is called with the identity of each line that it reads.
fn python(answer: &str) -> String {
    let text = format!(
        "import json, os, sys, time\n\
         def say(identity, msg='ok'):\n\
         \x20   print(json.dumps({{'identity': identity, 'msg': msg}}), flush=True)\n\
         {answer}\n\
         for line in sys.stdin:\n\
         \x20   answer(json.loads(line)['identity'])\n"
    );
    format!("echo x >> starts; cat > helper.py <<'END'\n{text}END\nexec python3 helper.py")
}

impl Script {
    /// A pool of one process, so that requests meet in it.
    fn single(text: &str) -> Self {
        Self::new(ProgramMode::Persistent { processes: 1, pipeline: 8 }, text)
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.file("starts")).unwrap().lines().count()
    }
}

type Answers = Vec<(String, Result<HelperAnswer, HelperError>)>;

/// Asks about one node, after which the helper is known to name its nodes, and then about all at once.
async fn ask_all(runner: &Runner, names: &[&str]) -> Answers {
    runner.run(&question("first")).await.unwrap();
    ask_at_once(runner, names).await
}

async fn ask_at_once(runner: &Runner, names: &[&str]) -> Answers {
    let runs: Vec<_> = names
        .iter()
        .map(|name| {
            let (runner, question) = (runner.clone(), question(name));
            tokio::spawn(async move { split(runner.run(&question).await).0 })
        })
        .collect();
    let mut answers = Vec::new();
    for (name, run) in names.iter().zip(runs) {
        answers.push(((*name).to_owned(), run.await.unwrap()));
    }
    answers
}

/// All are answered but `failed`, whose error is returned.
fn all_but(answers: Answers, failed: &str) -> String {
    let mut error = None;
    for (name, result) in answers {
        match result {
            Ok(answer) => assert_eq!((answer.identity.as_str(), name == failed), (name.as_str(), false)),
            Err(other) if name == failed => error = Some(other.to_string()),
            Err(other) => panic!("{name}: {other}"),
        }
    }
    error.unwrap()
}

#[tokio::test]
async fn several_requests_are_under_way_and_answers_find_their_nodes_in_any_order() {
    // Answers only when it has four, the last one first.
    let script = Script::single(&python(
        "have = []\n\
         def answer(identity):\n\
         \x20   have.append(identity)\n\
         \x20   if identity == 'first' or len(have) == 4:\n\
         \x20       while have:\n\
         \x20           name = have.pop()\n\
         \x20           say(name, 'for ' + name)",
    ));
    for (name, result) in ask_all(&script.runner(), &["a", "b", "c", "d"]).await {
        assert_eq!(result.unwrap().msg, format!("for {name}"));
    }
    assert_eq!(script.starts(), 1);
}

#[tokio::test]
async fn a_helper_that_does_not_name_its_nodes_gets_one_request_at_a_time() {
    let script = Script::new(
        PERSISTENT,
        "cat > helper.py <<'END'\nimport os\nwhile True:\n    data = os.read(0, 1 << 20)\n    if not data: break\n    n = data.count(b'\\n')\n    os.write(1, b'{\"msg\":\"%d\"}\\n' % n * n)\nEND\nexec python3 helper.py",
    );
    let names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, result) in ask_at_once(&script.runner(), &names).await {
        assert_eq!(result.unwrap().msg, "1", "{name}");
    }
}

#[tokio::test]
async fn a_crash_costs_each_request_of_the_process_one_retry_and_only_the_culprit_fails() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   if identity == 'poison':\n\
         \x20       print('choking on it', file=sys.stderr, flush=True)\n\
         \x20       os._exit(7)\n\
         \x20   say(identity)",
    ));
    let answers = ask_all(&script.runner(), &["a", "b", "poison", "c", "d", "e", "f"]).await;
    assert_eq!(all_but(answers, "poison"), "HELPER ended while it had a request: exit status 7");
    assert!(script.starts() >= 3, "the first, the one that ended over its retry, and one after it");
}

#[tokio::test]
async fn a_killed_process_loses_no_request() {
    // Ends with several under way, once.
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   if identity == 'c' and not os.path.exists('once'):\n\
         \x20       open('once', 'w').close()\n\
         \x20       os.kill(os.getpid(), 9)\n\
         \x20   say(identity)",
    ));
    for (name, result) in ask_all(&script.runner(), &["a", "b", "c", "d", "e"]).await {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    assert_eq!(script.starts(), 2);
}

#[tokio::test]
async fn a_request_that_hangs_fails_alone() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   if identity == 'hang':\n\
         \x20       time.sleep(300)\n\
         \x20   say(identity)",
    ))
    .timeout(Duration::from_secs(2));
    let answers = ask_all(&script.runner(), &["a", "hang", "b", "c", "d"]).await;
    let error = all_but(answers, "hang");
    assert!(error.contains("did not finish within 2s and was killed"), "{error}");
}

#[tokio::test]
async fn whoever_stands_behind_slow_requests_has_its_own_time() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   if identity != 'first':\n\
         \x20       time.sleep(0.5)\n\
         \x20   say(identity)",
    ))
    .timeout(Duration::from_secs(2));
    // The last answer comes after three seconds.
    for (name, result) in ask_all(&script.runner(), &["a", "b", "c", "d", "e", "f"]).await {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    assert_eq!(script.starts(), 1);
}

#[tokio::test]
async fn an_answer_for_a_node_that_was_not_asked_about_ends_the_process_and_reaches_nobody() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   if identity == 'b' and not os.path.exists('once'):\n\
         \x20       open('once', 'w').close()\n\
         \x20       say('stranger', 'for nobody')\n\
         \x20   say(identity)",
    ));
    for (name, result) in ask_all(&script.runner(), &["a", "b", "c", "d"]).await {
        assert_eq!(result.unwrap().msg, "ok", "{name}");
    }
    assert_eq!(script.starts(), 2);
}

#[tokio::test]
async fn a_second_answer_for_a_node_reaches_nobody() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   say(identity)\n\
         \x20   if identity == 'b' and not os.path.exists('once'):\n\
         \x20       open('once', 'w').close()\n\
         \x20       say(identity, 'again')",
    ));
    let runner = script.runner();
    for round in 0..2 {
        for (name, result) in ask_at_once(&runner, &["a", "b", "c"]).await {
            let answer = result.unwrap();
            assert_eq!((answer.identity.as_str(), answer.msg.as_str()), (name.as_str(), "ok"), "{round}");
        }
    }
}

#[tokio::test]
async fn an_endless_answer_costs_its_own_request_only() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   if identity == 'flood':\n\
         \x20       while True:\n\
         \x20           os.write(1, b'x' * 65536)\n\
         \x20   say(identity)",
    ));
    let answers = ask_all(&script.runner(), &["a", "b", "flood", "c", "d"]).await;
    assert_eq!(all_but(answers, "flood"), format!("HELPER wrote more than {MAX_OUTPUT} bytes and was killed"));
}

#[tokio::test]
async fn lines_may_come_in_pieces_and_requests_and_answers_may_fill_the_pipes() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   line = json.dumps({'identity': identity, 'msg': 'x' * 300000}).encode() + b'\\n'\n\
         \x20   while line:\n\
         \x20       line = line[os.write(1, line[:1 if len(line) > 299990 or len(line) < 10 else 50000]):]",
    ));
    let runner = script.runner();
    runner.run(&question("first")).await.unwrap();
    let runs: Vec<_> = (0..16)
        .map(|number| {
            let long = Question { inventory: "y".repeat(300_000), ..question(&format!("n{number}")) };
            let runner = runner.clone();
            tokio::spawn(async move { split(runner.run(&long).await).0 })
        })
        .collect();
    for run in runs {
        assert_eq!(run.await.unwrap().unwrap().msg.len(), 300_000);
    }
    assert_eq!(script.starts(), 1);
}

#[tokio::test]
async fn closing_waits_for_what_is_under_way() {
    let script = Script::new(
        PERSISTENT,
        &python("def answer(identity):\n    time.sleep(0.05)\n    say(identity, str(os.getpid()))"),
    );
    let runner = script.runner();
    let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
    let runs: Vec<_> = names
        .iter()
        .map(|name| {
            let (runner, question) = (runner.clone(), question(name));
            tokio::spawn(async move { split(runner.run(&question).await).0 })
        })
        .collect();
    choria_testkit::wait_until_async(Duration::from_secs(10), "it began", async || script.file("starts").exists())
        .await;
    runner.close().await;
    for run in runs {
        let pid = run.await.unwrap().unwrap().msg;
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} was ended with the pool");
    }
}

#[tokio::test]
async fn what_a_process_complains_about_is_told_with_the_next_answer() {
    let script = Script::single(&python(
        "def answer(identity):\n\
         \x20   sys.stderr.write('about %s\\n' % identity + 'e' * 100000)\n\
         \x20   sys.stderr.flush()\n\
         \x20   say(identity)",
    ));
    let runner = script.runner();
    let mut told = 0;
    for _ in 0..3 {
        let (answer, notes) = split(runner.run(&question("n1")).await);
        answer.unwrap();
        assert!(notes.stderr.len() <= MAX_STDERR);
        told += notes.stderr.len();
    }
    assert!(told > 0);
}
