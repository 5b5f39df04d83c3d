//! What the original did, recorded, against what we do.

use choria_protocol::lifecycle::Kind;
use choria_testkit::{TokenSigner, golden};
use serde_json::{Value, json};

use super::*;
use crate::helper::CsrReply;

/// Rows of `helper-cases.jsonl` whose outcome or counters differ on purpose (docs/differences).
const DIFFERENT: [(&str, &str); 7] = [
    // Nothing to send: refused at once instead of five useless tries.
    ("null", "answer_no_configuration"),
    ("emptyobj", "answer_no_configuration"),
    // A line end in a value would inject settings.
    ("cfgnewline", "answer_configuration_value"),
    // Certificate and CA are no PEM.
    ("mixed", "answer_certificate"),
    // A check of ours, which counts as one.
    ("key", "answer_key"),
    ("keypem", "answer_key"),
    // Text that would reach the node damaged.
    ("nonutf8key", "helper_decode"),
];

#[test]
fn golden_helper_cases_lead_to_the_same_requests_and_counters() {
    let mut ran = 0;
    for row in golden::lines("provisioner/helper-cases.jsonl") {
        let case = golden::member(&row, "case");
        // Rows about time, size and processes have tests of their own, which helper/tests.rs names.
        if row.get("output_note").is_some() {
            continue;
        }
        ran += 1;
        let output = match row.get("output_b64") {
            Some(text) => choria_protocol::rpc::decode_payload(text.as_str().unwrap()).into_owned(),
            None => golden::member(&row, "output").as_bytes().to_vec(),
        };
        let result = if row["exit"] != 0 {
            Err(HelperError::Failed { command: "HELPER".into(), status: "exit status 1".into() })
        } else if output.is_empty() {
            Err(HelperError::NoOutput { command: "HELPER".into(), status: None })
        } else {
            HelperAnswer::parse(&output).map_err(|reason| HelperError::Decode { command: "HELPER".into(), reason })
        };
        let mut sim = Sim::connected("");
        sim.helper = Box::new(move |_| result.clone());
        let (mute, refuses) = (case == "shutdown-mute", case == "shutrefused");
        sim.boot(
            "node.lab.test",
            FakeNode::new(move |action| match action {
                Action::Shutdown if mute => Behaviour::Silent,
                Action::Shutdown if refuses => Behaviour::Status(1, "no"),
                _ => Behaviour::Good,
            }),
        );
        // One attempt: failures are tried again after a second.
        sim.run_until(secs(100), case, |sim| sim.metrics.provisioned.get() + sim.metrics.provision_errors.get() == 1);
        assert_case(case, &row, &sim);
    }
    assert_eq!(ran, 52);
}

fn assert_case(case: &str, row: &Value, sim: &Sim) {
    let metrics = &sim.metrics;
    let counted = json!({
        "helper_errors": metrics.helper_errors.get(), "helper_time_count": metrics.helper_time.count(),
        "provision_errors": metrics.provision_errors.get(), "provisioned": metrics.provisioned.get(),
        "helper_shutdown_requests": metrics.helper_shutdown_requests.get(),
    });
    if let Some((_, reason)) = DIFFERENT.iter().find(|(name, _)| *name == case) {
        assert_eq!(sim.asked("node.lab.test"), ["inventory"], "{case}");
        assert_eq!(metrics.refused(reason), 1, "{case}");
        let of_helper = u64::from(reason.starts_with("helper"));
        assert_eq!((metrics.provision_errors.get(), metrics.helper_errors.get()), (1, of_helper), "{case}");
        return;
    }
    let asked: Vec<Value> = sim.asked("node.lab.test").into_iter().map(Value::from).collect();
    assert_eq!(Value::Array(asked), row["rpcs"], "{case}");
    for (name, value) in counted.as_object().unwrap() {
        if let Some(expected) = row.get("metrics") {
            assert_eq!(*value, expected.get(name).cloned().unwrap_or_else(|| Value::from(0)), "{case}: {name}");
        }
    }
    let outcome = if metrics.provisioned.get() == 1 { "provisioned" } else { "error" };
    assert_eq!(row["outcome"], outcome, "{case}");
    if let Some(inputs) = row.get("configure") {
        let sent = sim.sent.iter().find(|sent| sent.request.message.contains("\"configure\"")).unwrap();
        let body: Value = serde_json::from_str(&sent.request.message).unwrap();
        for (key, expected) in inputs.as_object().unwrap() {
            let ours = match key.as_str() {
                "config" => serde_json::from_str(body["data"]["config"].as_str().unwrap()).unwrap(),
                key => body["data"][key].clone(),
            };
            assert_eq!(ours, *expected, "{case}: {key}");
        }
    }
}

#[test]
fn golden_metrics_names_types_labels_and_counts() {
    let mut sim = Sim::connected("jwt: true");
    sim.shows_fleet = false;
    sim.helper = Box::new(|request| {
        let identity = request["identity"].as_str().unwrap();
        match identity {
            "defers" => Ok(HelperAnswer { defer: true, ..Default::default() }),
            "shuts" => Ok(HelperAnswer { shutdown: true, ..Default::default() }),
            "bad" => Err(HelperError::Decode { command: "h".into(), reason: "x".into() }),
            _ => Ok(world().plain_answer(identity)),
        }
    });
    for name in ["good", "defers", "shuts", "bad", "stays"] {
        sim.boot(
            name,
            FakeNode::new(move |action| match (name, action) {
                ("stays", Action::Restart) => Behaviour::Status(1, "enables provisioning"),
                _ => Behaviour::Good,
            }),
        );
        // One at a time, and no second attempt.
        sim.run_until(secs(10), name, |sim| sim.engine.is_idle());
        sim.nodes.remove(name);
        if name == "bad" {
            // What failed is tried again by itself; here it has gone meanwhile.
            sim.engine.node_event(event(Kind::Shutdown, name, "provision_mode_server").as_bytes(), sim.now);
        }
    }
    sim.engine.node_event(event(Kind::Shutdown, "stays", "provision_mode_server").as_bytes(), sim.now);
    sim.settle();
    let page = sim.metrics.render();
    let ours: Vec<&str> = page.lines().collect();
    for line in golden::text("provisioner/metrics.txt").lines() {
        let kind = line.strip_prefix("# TYPE ");
        let name = kind.unwrap_or(line);
        if !name.starts_with("choria_") {
            continue;
        }
        if kind.is_some() {
            assert!(ours.contains(&line), "{line} is missing");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let found = ours.iter().find_map(|l| l.rsplit_once(' ').filter(|(s, _)| *s == series));
        let Some((_, mine)) = found else { panic!("{series} is missing") };
        // Times differ; connections are few; answers to discovery are counted here, too.
        if !series.contains("_sum") && series.starts_with("choria_provisioner") {
            assert_eq!(mine, value, "{series}");
        }
    }
}

#[test]
fn golden_metrics_at_start_are_there_from_the_start() {
    let page = Metrics::new("lab").render();
    for line in golden::text("provisioner/metrics-start.txt").lines().filter(|l| l.contains("choria_")) {
        let series = line.strip_prefix("# TYPE ").unwrap_or_else(|| line.rsplit_once(' ').unwrap().0);
        assert!(page.contains(series), "{series} is missing in\n{page}");
    }
}

/// One real node of the original from startup event to restart.
#[test]
fn golden_flow_of_a_real_node() {
    let rows = golden::lines("provisioner/flow-pki-jwt.jsonl");
    let requests: Vec<&Value> = rows
        .iter()
        .filter(|row| {
            row["secure"]["protocol"] == "choria:secure:request:1"
                && row["inner"]["envelope"]["agent"] != "registration"
        })
        .collect();
    let configure = &requests[4]["message"]["data"];
    let answer = HelperAnswer {
        configuration: serde_json::from_str(configure["config"].as_str().unwrap()).unwrap(),
        certificate: configure["certificate"].as_str().unwrap().into(),
        ca: configure["ca"].as_str().unwrap().into(),
        ..Default::default()
    };
    let replies: Vec<Value> = rows
        .iter()
        .filter(|row| row["secure"]["protocol"] == "choria:secure:reply:1")
        .map(|row| row["message"]["data"].clone())
        .collect();
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.now.unix = 1_795_170_807;
    let mut next = replies.into_iter().skip(1);
    let token = TokenSigner::request(testing::SECRET, "nats://localhost:25380");
    let token = json!({"jwt": world().signer.issue_at(&token, 1_795_170_800), "ecdh_public": ""});
    sim.helper = Box::new(move |_| Ok(answer.clone()));
    sim.nodes.insert(
        "node0.lab.test".into(),
        FakeNode::new(move |action| match action {
            // Signed by another signer than ours; its checks are golden rows of their own.
            Action::Jwt => Behaviour::Data(token.clone()),
            _ => Behaviour::Data(next.next().unwrap()),
        }),
    );
    let startup =
        rows.iter().find(|row| row["subject"] == "choria.lifecycle.event.startup.provision_mode_server").unwrap();
    let began = sim.sent.len();
    sim.engine.node_event(startup["event"].to_string().as_bytes(), sim.now);
    sim.settle();
    sim.run(secs(5));
    assert_eq!(sim.metrics.provisioned.get(), 1, "refused: {}", sim.metrics.render());
    assert_eq!(began, 1, "the discovery request came first");
    assert_eq!(sim.sent.len(), requests.len());
    for (ours, original) in sim.sent.iter().zip(&requests) {
        assert_same_request(ours, original);
    }
}

fn assert_same_request(ours: &sim::Sent, original: &Value) {
    assert_eq!(original["subject"], ours.subject);
    let text = ours.request.to_text();
    let mut inner: Value = serde_json::from_str(&text).unwrap();
    let mut expected = original["inner"].clone();
    for document in [&mut inner, &mut expected] {
        document["envelope"]["requestid"] = json!("");
        document["envelope"]["time"] = json!(0);
        document.as_object_mut().unwrap().remove("message");
    }
    assert_eq!(inner.to_string(), expected.to_string(), "also the order of keys");
    let message = &original["message"];
    match message.as_str() {
        Some(ping) => assert_eq!(ours.request.message, ping),
        None => assert_eq!(ours.request.message, choria_protocol::json::value_text(message), "byte for byte"),
    }
    let headers = &original["headers"];
    assert_eq!(headers["mc_sender"], ours.headers.mc_sender.clone().unwrap());
    assert_eq!(headers["seen-by"], json!(ours.headers.seen_by));
    let prefix = |subject: &str| subject.rsplit_once('.').map(|(head, tail)| (head.to_owned(), tail.len())).unwrap();
    assert_eq!(prefix(headers["reply-to"].as_str().unwrap()), prefix(ours.headers.reply_to.as_deref().unwrap()));
}

#[test]
fn golden_tokens_are_judged_as_by_the_original_and_belong_to_us() {
    let signer = golden::path("provisioner/keys/signer.pem");
    let text = format!("token: toomanysecrets\njwt_verify_cert: {}\nfeatures: {{jwt: true}}\n", signer.display());
    let config = ProvisionerConfig::from_text("p.yaml".as_ref(), &text).unwrap();
    let rules = Rules::new(&config).unwrap();
    for row in golden::lines("provisioner/jwt-cases.jsonl") {
        let case = golden::member(&row, "case");
        let verdict = rules.check_token(golden::member(&row, "jwt"), 1_795_219_200);
        // The original does not compare the token's secret with its own.
        if matches!(case, "cht-other" | "cht-none") {
            assert_eq!(verdict.unwrap_err().reason, "jwt_cht", "{case}");
            continue;
        }
        assert_eq!(verdict.is_ok(), row["accepted"] == true, "{case}: {verdict:?}");
        let again = rules.check_token(golden::member(&row, "jwt"), 1_795_219_200);
        assert_eq!(again, verdict, "{case}: remembering does not change the verdict");
    }
    let good = golden::lines("provisioner/jwt-cases.jsonl").remove(0);
    let late = rules.check_token(golden::member(&good, "jwt"), 4_000_000_000).unwrap_err();
    assert_eq!(late.reason, "jwt_expired", "a remembered token expires, too");
}

/// Requests that the original accepts and we refuse, with our reason (docs/differences).
const STRICTER: [(&str, &str); 12] = [
    ("pem-othertype", "csr_label"),
    ("two", "csr_second_block"),
    ("twocn", "csr_denied_name"),
    ("san-upper", "csr_denied_name"),
    ("san-other", "csr_foreign_name"),
    ("san-dot", "csr_denied_name"),
    ("san-ip", "csr_foreign_name"),
    ("san-mail", "csr_denied_name"),
    ("san-uri", "csr_denied_name"),
    ("rsa1024", "csr_weak_key"),
    ("forgedsig", "csr_signature"),
    ("ssldir-evil", "ssldir"),
];

#[test]
fn design6_golden_certificate_requests() {
    let rules = testing::rules("pki: true");
    let (mut stricter, mut rows) = (0, 0);
    for row in golden::lines("provisioner/csr-cases.jsonl") {
        let case = golden::member(&row, "case");
        let identity = golden::member(&row, "identity");
        let Some(reply) = row.get("reply") else {
            // 20 000 names: choria-security makes them.
            assert_eq!(case, "huge");
            continue;
        };
        rows += 1;
        let text = |key: &str| reply.get(key).map_or(Some(String::new()), |v| v.as_str().map(str::to_owned));
        let (Some(csr), Some(ssldir)) = (text("csr"), text("ssldir")) else {
            assert_eq!(row["outcome"], "refused", "{case}");
            continue;
        };
        let reply = CsrReply { csr, public_key: String::new(), ssldir };
        let verdict = rules.check_csr(&reply, identity).map_err(|refusal| refusal.reason);
        if let Some((_, reason)) = STRICTER.iter().find(|(name, _)| *name == case) {
            assert_eq!(verdict.unwrap_err(), *reason, "{case}");
            stricter += 1;
            continue;
        }
        // What crashes the original is refused.
        assert_eq!(verdict.is_ok(), row["outcome"] == "accepted", "{case}: {verdict:?}");
        if let Ok(checked) = verdict {
            let bare = reply.csr[reply.csr.find("-----BEGIN").unwrap()..].replace("NEW CERTIFICATE", "CERTIFICATE");
            assert_eq!(checked.facts.pem, bare, "{case}: helpers get the block and nothing around it");
        }
    }
    assert_eq!(rows, 28);
    assert_eq!(stricter, STRICTER.len(), "every row of the list was met");
}
