//! New settings for a running broker: the recorded reloads, and what only ours has.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::configs::{Setup, allow, mapping};
use common::notes::{Notes, client, users};
use common::wire::receive;
use common::{CONNECT, Raw, connect_as, golden_lines, loopback, start_with};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, Listener, OpenAuthenticator, Permissions, Reload, ReloadError,
    Reloaded, ServiceExport, ServiceImport, StaticAuthenticator, StreamExport, StreamImport, SubjectRules,
};
use serde_json::Value;

/// Settings of one side of a recorded reload.
fn setup(
    change: impl Fn(&mut BrokerConfig),
    accounts: Vec<AccountConfig>,
    users: Option<StaticAuthenticator>,
) -> Setup {
    let mut config = BrokerConfig::default();
    change(&mut config);
    let authenticator: Arc<dyn Authenticator> = match users {
        Some(users) => Arc::new(users),
        None => Arc::new(OpenAuthenticator::default()),
    };
    Setup { config, accounts, authenticator }
}

fn open(change: impl Fn(&mut BrokerConfig)) -> Setup {
    setup(change, vec![AccountConfig::new("$G")], None)
}

fn two_users(rights: Permissions) -> Setup {
    let users = StaticAuthenticator::new().user("a", "x", "$G", rights).user("b", "x", "$G", Permissions::unlimited());
    setup(|_| {}, vec![AccountConfig::new("$G")], Some(users))
}

fn one_user(user: &str, password: &str) -> StaticAuthenticator {
    StaticAuthenticator::new().user(user, password, "$G", Permissions::unlimited())
}

/// Accounts A, which exports, and B, which may import; user `b` in one of them.
fn two_accounts(imports: bool, b_is_in: &str) -> Setup {
    let a = AccountConfig::new("A").export(StreamExport::new("s.>")).export(ServiceExport::new("svc"));
    let mut b = AccountConfig::new("B");
    if imports {
        b = b.import(StreamImport::new("A", "s.>")).import(ServiceImport::new("A", "svc"));
    }
    let free = Permissions::unlimited;
    let users = StaticAuthenticator::new().user("a", "x", "A", free()).user("b", "x", b_is_in, free());
    setup(|_| {}, vec![a, b], Some(users))
}

/// What stood before and after a recorded reload. `None`: there is no counterpart in this room.
fn recorded(case: &str) -> Option<(Setup, Setup)> {
    let free = Permissions::unlimited;
    let narrow = || allow(&["ok.>"], &["ok.>"]);
    let in_g = || vec![AccountConfig::new("$G")];
    Some(match case {
        "permissions-added" => (two_users(free()), two_users(narrow())),
        "permissions-removed" => (two_users(narrow()), two_users(free())),
        "user-removed" => (two_users(free()), setup(|_| {}, in_g(), Some(one_user("b", "x")))),
        "password-changed" => {
            let users = one_user("a", "y").user("b", "x", "$G", free());
            (two_users(free()), setup(|_| {}, in_g(), Some(users)))
        }
        "auth-enabled" => (open(|_| {}), two_users(free())),
        "auth-disabled" => (two_users(free()), open(|_| {})),
        "max-payload-lowered" => (open(|_| {}), open(|config| config.max_payload = 1000)),
        "max-connections-lowered" => {
            (open(|config| config.max_connections = 10), open(|config| config.max_connections = 1))
        }
        "max-subscriptions-lowered" => {
            (open(|config| config.max_subscriptions = 10), open(|config| config.max_subscriptions = 1))
        }
        "max-control-line" => (open(|_| {}), open(|config| config.max_control_line = 64)),
        "server-name-change-refused" => {
            (open(|config| config.server_name = "one".into()), open(|config| config.server_name = "two".into()))
        }
        "mappings-added" => {
            let mut after = open(|_| {});
            after.accounts[0].mappings.push(mapping("foo", "bar"));
            (open(|_| {}), after)
        }
        "import-added" => (two_accounts(false, "B"), two_accounts(true, "B")),
        "import-removed" => (two_accounts(true, "B"), two_accounts(false, "B")),
        "user-moved-to-other-account" => (two_accounts(false, "B"), two_accounts(false, "A")),
        "account-removed" => {
            let mut after = two_accounts(false, "B");
            after.accounts.pop();
            after.authenticator = Arc::new(StaticAuthenticator::new().user("a", "x", "A", free()));
            (two_accounts(false, "B"), after)
        }
        // The program reads files and command lines.
        "bad-config-kept" | "syntax-error-kept" | "port-change-refused" => return None,
        other => panic!("unknown case {other}"),
    })
}

/// What a client had subscribed before; the recording only shows the sids.
fn subscriptions(case: &str, client: &str) -> &'static str {
    match (case, client) {
        ("permissions-added", "a") => "SUB ok.1 1\r\nSUB no.1 2\r\nSUB > 3\r\n",
        ("permissions-added", "b") => "SUB no.1 1\r\n",
        ("max-subscriptions-lowered", _) => "SUB a 1\r\nSUB b 2\r\n",
        ("mappings-added", _) => "SUB bar 1\r\n",
        ("import-added" | "import-removed", "a") => "SUB svc 1\r\n",
        ("import-added" | "import-removed", "b") => "SUB s.> 1\r\nSUB in 2\r\n",
        _ => "",
    }
}

/// The words that ours sends where nats-server closes without any.
fn received(connection: &Value) -> String {
    let text = connection["received_on_reload"].as_str().unwrap();
    match text.split_once("_R_.") {
        // A request that came over an import, with what differs every time.
        Some((before, _)) => format!(
            "{before}_R_.<6>.<6> <n> <n>\r\nNATS/1.0\r\nNats-Request-Info: {{\"acc\":\"B\",\"rtt\":<v>}}\r\n\r\n\r\n"
        ),
        None if text.is_empty() && connection["eof"] == true => "-ERR 'Authorization Violation'\r\n".into(),
        None => text.into(),
    }
}

fn into_reload(broker: &Broker, setup: Setup) -> Result<Reloaded, ReloadError> {
    let Setup { mut config, accounts, authenticator } = setup;
    config.listen.push(loopback());
    broker.reload(Reload { config, accounts, authenticator, guards: vec![] })
}

async fn run(case: &Value, before: Setup, after: Setup) {
    let name = case["case"].as_str().unwrap();
    let broker = start_with(before.config, before.accounts, before.authenticator, vec![], Arc::new(Notes::default()));
    let recorded = case["connections"].as_object().unwrap();
    let mut clients = BTreeMap::new();
    for user in recorded.keys() {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        let with_login = case["before"].as_str().unwrap().contains("user");
        raw.send(if with_login { connect_as(user, "x") } else { CONNECT.to_owned() }).await;
        raw.send(subscriptions(name, user)).await;
        raw.sync().await;
        clients.insert(user.clone(), raw);
    }
    let outcome = into_reload(&broker, after);
    let log = case["log"].as_array().unwrap().last().unwrap().as_str().unwrap();
    match log.split_once("[ERR] Failed to reload server configuration: ") {
        Some((_, reason)) => assert_eq!(outcome.unwrap_err().to_string(), reason, "{name}"),
        None => drop(outcome.unwrap()),
    }
    // Whoever imports speaks first: the exporter's side shows what came.
    let order = if name.starts_with("import") {
        ["b", "a"].map(str::to_owned).to_vec()
    } else {
        recorded.keys().cloned().collect()
    };
    for user in order {
        let (connection, raw) = (&recorded[&user], clients.get_mut(&user).unwrap());
        let context = |error: String| panic!("{name}, {user}: {error}");
        receive(raw, received(connection).as_bytes()).await.unwrap_or_else(context);
        if connection["eof"] == true {
            assert_eq!(raw.rest().await, "", "{name}, {user}");
        }
        let Some(sent) = connection["then_sends"].as_str() else { continue };
        raw.send(sent).await;
        if connection["then_eof"] == false {
            raw.send("PING\r\n").await;
        }
        receive(raw, connection["then_receives"].as_str().unwrap().as_bytes()).await.unwrap_or_else(context);
        if connection["then_eof"] == true {
            assert_eq!(raw.rest().await, "", "{name}, {user}");
        }
    }
    let (_, info) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
    let info: Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
    let wanted = &case["new_connection_info"];
    for key in ["headers", "auth_required"] {
        assert_eq!(info.get(key), wanted.get(key), "{name}");
    }
    assert!(name == "max-payload-lowered" || info["max_payload"] == wanted["max_payload"], "{name}");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_reload() {
    let (mut ran, mut left_out) = (0, 0);
    for case in golden_lines("reload/reload.jsonl") {
        match recorded(case["case"].as_str().unwrap()) {
            Some((before, after)) => {
                ran += 1;
                run(&case, before, after).await;
            }
            None => left_out += 1,
        }
    }
    assert_eq!((ran, left_out), (16, 3));
}

/// Settings with a clear-text listener.
fn with_listener(change: impl Fn(&mut BrokerConfig)) -> BrokerConfig {
    let mut config = BrokerConfig { listen: vec![loopback()], ..BrokerConfig::default() };
    change(&mut config);
    config
}

fn reload(broker: &Broker, users: StaticAuthenticator) -> Reloaded {
    let accounts = vec![AccountConfig::new("A")];
    let reload = Reload { config: with_listener(|_| {}), accounts, authenticator: Arc::new(users), guards: vec![] };
    broker.reload(reload).unwrap()
}

async fn started(users: StaticAuthenticator) -> (Broker, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let accounts = vec![AccountConfig::new("A")];
    let broker = start_with(BrokerConfig::default(), accounts, Arc::new(users), vec![], notes.clone());
    (broker, notes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_deny_filters_subscriptions_that_are_there_and_its_end_opens_them() {
    let denying = |denied: &[&str]| {
        let subscribe = SubjectRules { allow: None, deny: denied.iter().map(|text| (*text).to_owned()).collect() };
        users(&["p"]).user("s", "x", "A", Permissions { subscribe, ..Permissions::default() })
    };
    let (broker, _) = started(denying(&[])).await;
    let mut subscriber = client(&broker, "s").await;
    subscriber.send("SUB a.* 1\r\nSUB a.* q 2\r\nSUB b q 3\r\nSUB b.> 4\r\nUNSUB 1 6\r\n").await;
    subscriber.sync().await;
    let mut publisher = client(&broker, "p").await;
    publisher.send("PUB a.x 0\r\n\r\n").await;
    publisher.sync().await;
    subscriber.expect("MSG a.x 1 0\r\n\r\nMSG a.x 2 0\r\n\r\n").await;

    let reloaded = reload(&broker, denying(&["a.x", "b"]));
    assert_eq!(reloaded, Reloaded { connections_changed: 1, subscriptions_removed: 1, ..Reloaded::default() });
    subscriber.expect("-ERR 'Permissions Violation for Subscription to \"b\" using queue \"q\" (sid \"3\")'\r\n").await;
    publisher.send("PUB a.x 0\r\n\r\nPUB a.y 0\r\n\r\nPUB b 0\r\n\r\nPUB b.c 0\r\n\r\n").await;
    publisher.sync().await;
    subscriber.expect("MSG a.y 1 0\r\n\r\nMSG a.y 2 0\r\n\r\nMSG b.c 4 0\r\n\r\n").await;

    assert_eq!(reload(&broker, denying(&[])), Reloaded { connections_changed: 1, ..Reloaded::default() });
    publisher.send("PUB a.x 0\r\n\r\n".repeat(5)).await;
    publisher.sync().await;
    // UNSUB after six still counts those before both changes.
    let queue = "MSG a.x 2 0\r\n\r\n".repeat(5);
    let plain = "MSG a.x 1 0\r\n\r\n".repeat(4);
    receive(&mut subscriber, format!("{plain}{queue}").as_bytes()).await.unwrap();
    subscriber.sync().await;
    assert_eq!(broker.connections("A")[0].subscriptions, ["b.>", "a.*"]);
    // Nothing changed, nothing happens.
    assert_eq!(reload(&broker, denying(&[])), Reloaded::default());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_ended_by_a_reload_is_told_of() {
    let (broker, notes) = started(users(&["a", "b", "c"])).await;
    let mut a = client(&broker, "a").await;
    let mut b = client(&broker, "b").await;
    let mut c = client(&broker, "c").await;
    let users =
        users(&["a"]).user("b", "other", "A", Permissions::unlimited()).user("c", "x", "Z", Permissions::unlimited());
    assert_eq!(reload(&broker, users), Reloaded { connections_ended: 2, ..Reloaded::default() });
    assert_eq!(b.rest().await, "-ERR 'Authorization Violation'\r\n");
    assert_eq!(c.rest().await, "-ERR 'Authorization Violation'\r\n");
    for note in [
        "refused login_changed b",
        "refused rights_changed c",
        "disconnected 2 Authentication Failure",
        "disconnected 3",
    ] {
        notes.wait_for(note).await;
    }
    a.sync().await;
    let info = broker.connections("A");
    assert_eq!((info.len(), info[0].cid), (1, 1));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_comes_nearer_is_kept() {
    let (broker, notes) = started(users(&["a"])).await;
    let mut a = client(&broker, "a").await;
    let soon = SystemTime::now() + Duration::from_millis(200);
    let expiring = users(&["a"]).with_grant("a", |grant| grant.expires_at = Some(soon));
    assert_eq!(reload(&broker, expiring).connections_changed, 1);
    assert_eq!(a.rest().await, "-ERR 'User Authentication Expired'\r\n");
    notes.wait_for("disconnected 1 Authentication Expired").await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_cannot_be_is_refused_as_a_whole() {
    let (broker, _) = started(users(&["a"])).await;
    let mut a = client(&broker, "a").await;
    let taken = broker.local_addr(0).unwrap();
    let nobody: Arc<dyn Authenticator> = Arc::new(StaticAuthenticator::new());
    let try_with = |config: BrokerConfig, accounts: Vec<AccountConfig>| {
        let reload = Reload { config, accounts, authenticator: Arc::clone(&nobody), guards: vec![] };
        broker.reload(reload).unwrap_err().to_string()
    };
    let accounts = || vec![AccountConfig::new("A")];
    let moved = with_listener(|config| config.listen = vec![Listener::plain(taken)]);
    let unsupported = format!("config reload not supported for Port: old=0, new={}", taken.port());
    assert_eq!(try_with(moved, accounts()), unsupported);
    for (name, change) in [
        ("SystemAccount: old=, new=A", (|config| config.system_account = Some("A".into())) as fn(&mut BrokerConfig)),
        ("HTTPPort: old=0, new=8222", |config| config.monitor_addr = "127.0.0.1:8222".parse().ok()),
        ("NoHeaderSupport: old=false, new=true", |config| config.headers = false),
        ("Host: old=127.0.0.1, new=127.0.0.2", |config| config.listen[0].addr.set_ip([127, 0, 0, 2].into())),
        ("ServerName: old=, new=two", |config| config.server_name = "two".into()),
        ("MaxSubs: old=0, new=9", |config| config.max_subscriptions = 9),
        ("Listeners: old=1, new=2", |config| config.listen.push(loopback())),
    ] {
        assert_eq!(try_with(with_listener(change), accounts()), format!("config reload not supported for {name}"));
    }
    let importing = AccountConfig::new("B").import(StreamImport::new("A", "s"));
    let error = try_with(with_listener(|_| {}), vec![AccountConfig::new("A"), importing]);
    assert!(error.contains("does not export"), "{error}");
    assert!(try_with(with_listener(|config| config.max_pending = 10), accounts()).contains("max_pending"));
    // Nobody was asked to leave.
    a.sync().await;
    assert_eq!(broker.connections("A").len(), 1);
    broker.shutdown().await;
    let error = try_with(with_listener(|_| {}), accounts());
    assert_eq!(error, "the broker is shutting down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_comes_back_is_the_same_account() {
    let both = || vec![AccountConfig::new("A"), AccountConfig::new("B")];
    let users = || users(&["a"]).user("b", "x", "B", Permissions::unlimited());
    let notes = Arc::new(Notes::default());
    let broker = start_with(BrokerConfig::default(), both(), Arc::new(users()), vec![], notes.clone());
    let reload = |accounts| {
        let authenticator = Arc::new(users());
        broker.reload(Reload { config: with_listener(|_| {}), accounts, authenticator, guards: vec![] }).unwrap()
    };
    let mut inside = broker.subscribe("B", ">", 1).unwrap();
    let mut b = client(&broker, "b").await;
    assert_eq!(reload(vec![AccountConfig::new("A")]).connections_ended, 1);
    assert_eq!(b.rest().await, "-ERR 'Authorization Violation'\r\n");
    assert!(inside.recv().await.is_none() && broker.subscribe("B", ">", 1).is_err());
    assert!(broker.publish("B", "x", None, None, b"").is_err());
    let mut refused = Raw::connect(broker.local_addr(0).unwrap()).await;
    refused.send(connect_as("b", "x")).await;
    assert_eq!(refused.rest().await, "-ERR 'Authorization Violation'\r\n");
    // In another order, too.
    reload(vec![AccountConfig::new("C"), AccountConfig::new("B"), AccountConfig::new("A")]);
    let mut b = client(&broker, "b").await;
    b.send("SUB x 1\r\n").await;
    b.sync().await;
    let mut a = client(&broker, "a").await;
    a.send("PUB x 0\r\n\r\n").await;
    a.sync().await;
    b.sync().await;
    broker.publish("B", "x", None, None, b"").unwrap();
    b.expect("MSG x 1 0\r\n\r\n").await;
    broker.shutdown().await;
}
