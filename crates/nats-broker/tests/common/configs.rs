//! The nats-server configurations of the golden data, by hand as ours.

use std::sync::Arc;
use std::time::Duration;

use nats_broker::{
    AccountConfig, Authenticator, BrokerConfig, LatencySampling, MappingTarget, OpenAuthenticator, Permissions,
    ResponseBudget, ResponseKind, ServiceExport, ServiceImport, ServiceLatency, StaticAuthenticator, StreamExport,
    StreamImport, SubjectMapping, SubjectRules,
};

/// Settings, accounts and users of one configuration.
pub struct Setup {
    pub config: BrokerConfig,
    pub accounts: Vec<AccountConfig>,
    pub authenticator: Arc<dyn Authenticator>,
}

fn list(filters: &[&str]) -> Vec<String> {
    filters.iter().map(|filter| (*filter).to_owned()).collect()
}

/// Allow lists; an empty slice stands for "no list".
pub fn allow(publish: &[&str], subscribe: &[&str]) -> Permissions {
    let rules = |filters: &[&str]| SubjectRules { allow: (!filters.is_empty()).then(|| list(filters)), deny: vec![] };
    Permissions { publish: rules(publish), subscribe: rules(subscribe), responses: None }
}

fn deny(publish: &[&str], subscribe: &[&str]) -> Permissions {
    let rules = |filters: &[&str]| SubjectRules { allow: None, deny: list(filters) };
    Permissions { publish: rules(publish), subscribe: rules(subscribe), responses: None }
}

fn subscribe(allow: &[&str], deny: &[&str]) -> Permissions {
    Permissions {
        subscribe: SubjectRules { allow: (!allow.is_empty()).then(|| list(allow)), deny: list(deny) },
        ..Permissions::default()
    }
}

fn publish(allow: &[&str], deny: &[&str]) -> Permissions {
    Permissions {
        publish: SubjectRules { allow: (!allow.is_empty()).then(|| list(allow)), deny: list(deny) },
        ..Permissions::default()
    }
}

fn responding(mut permissions: Permissions, max: Option<u32>, ttl: Option<Duration>) -> Permissions {
    permissions.responses = Some(ResponseBudget { max, ttl });
    permissions
}

const TWO_MINUTES: Option<Duration> = Some(Duration::from_secs(120));

/// The setup of a configuration name; `None` for those that this broker does not have.
pub fn setup(name: &str) -> Option<Setup> {
    let mut config = BrokerConfig::default();
    let mut accounts = vec![AccountConfig::new("$G")];
    let free = Permissions::unlimited;
    let users = StaticAuthenticator::new();
    let authenticator: Arc<dyn Authenticator> = match name {
        "open" => Arc::new(OpenAuthenticator::default()),
        "max-connections" => {
            config.max_connections = 2;
            Arc::new(OpenAuthenticator::default())
        }
        "max-sub-tokens" => {
            config.max_sub_tokens = 3;
            Arc::new(OpenAuthenticator::default())
        }
        "max-subscriptions" => {
            config.max_subscriptions = 2;
            config.max_control_line = 256;
            config.max_payload = 16;
            Arc::new(OpenAuthenticator::default())
        }
        "token" => Arc::new(users.token("s3cr3t", "$G", free())),
        "userpass" => Arc::new(users.user("u1", "p1", "$G", free())),
        "users" => {
            config.auth_timeout = Duration::from_secs(1);
            Arc::new(users.user("a", "pa", "$G", free()).user("b", "pb", "$G", allow(&["x"], &["y"])))
        }
        "no-auth-user" => Arc::new(
            users
                .user("guest", "g", "$G", allow(&["g.>"], &["g.>"]))
                .user("b", "pb", "$G", free())
                .no_auth_user("guest"),
        ),
        "default-permissions" => Arc::new(users.user("dflt", "x", "$G", allow(&["d.>"], &["d.>"])).user(
            "own",
            "x",
            "$G",
            allow(&["o.>"], &[]),
        )),
        "two-accounts" => {
            accounts = vec![AccountConfig::new("A"), AccountConfig::new("B")];
            Arc::new(users.user("a", "x", "A", free()).user("b", "x", "B", free()))
        }
        "account-limits" => {
            accounts = vec![
                AccountConfig {
                    max_connections: Some(1),
                    max_subscriptions: Some(2),
                    max_payload: Some(10),
                    ..AccountConfig::new("A")
                },
                AccountConfig { max_connections: Some(2), max_subscriptions: Some(1), ..AccountConfig::new("B") },
            ];
            Arc::new(users.user("a", "x", "A", free()).user("b", "x", "B", free()))
        }
        "mappings" => {
            accounts[0].mappings = mappings();
            Arc::new(OpenAuthenticator::default())
        }
        "accounts" => {
            accounts = crossing_accounts();
            let authenticator =
                users.user("a", "x", "A", free()).user("b", "x", "B", free()).user("b2", "x", "B", free());
            Arc::new(authenticator.user("c", "x", "C", free()))
        }
        "responses" => Arc::new(response_users(users)),
        "permissions" => Arc::new(permission_users(users)),
        _ => return None,
    };
    Some(Setup { config, accounts, authenticator })
}

/// A mapping with one target for all.
pub fn mapping(source: &str, target: &str) -> SubjectMapping {
    weighted(source, &[(target, 100)])
}

/// A mapping with several targets.
pub fn weighted(source: &str, targets: &[(&str, u8)]) -> SubjectMapping {
    let targets = targets.iter().map(|(subject, weight)| MappingTarget { subject: (*subject).into(), weight: *weight });
    SubjectMapping { source: source.into(), targets: targets.collect() }
}

/// `mappings.conf`.
fn mappings() -> Vec<SubjectMapping> {
    let mut all: Vec<SubjectMapping> = [
        ("foo", "bar"),
        ("a.*", "b.$1"),
        ("w.*", "x.{{wildcard(1)}}"),
        ("two.*.*", "t.{{wildcard(2)}}.{{wildcard(1)}}"),
        ("gt.>", "tg.>"),
        ("mix.*.>", "m.$1.>"),
        ("part.*", "p.{{partition(5,1)}}.$1"),
        ("part0.*.*", "p0.{{partition(10,1,2)}}.$1.$2"),
        ("partall.*.*", "pa.{{partition(7)}}.$1.$2"),
        ("spl.*", "s.{{split(1,-)}}"),
        ("sfl.*", "s.{{splitfromleft(1,3)}}"),
        ("sfr.*", "s.{{splitfromright(1,3)}}"),
        ("slfl.*", "s.{{slicefromleft(1,3)}}"),
        ("slfr.*", "s.{{slicefromright(1,3)}}"),
        ("lft.*", "s.{{left(1,3)}}"),
        ("rgt.*", "s.{{right(1,3)}}"),
        ("rnd.*", "r.{{random(4)}}.$1"),
        ("up.*", "u.{{Wildcard( 1 )}}"),
        ("SFL.*", "S.{{SplitFromLeft(1,2)}}"),
        ("drop.one", "d.one"),
        ("swap.a", "swap.b"),
        ("swap.b", "swap.a"),
    ]
    .iter()
    .map(|(source, target)| mapping(source, target))
    .collect();
    all.push(weighted("wt.x", &[("wt.a", 20), ("wt.b", 30), ("wt.c", 50)]));
    all.push(weighted("wp.x", &[("wp.a", 40)]));
    all.push(weighted("wself.x", &[("wself.x", 70), ("wself.y", 30)]));
    all
}

/// `accounts.conf` without the import that ours refuses (`$1` in the exported subject).
fn crossing_accounts() -> Vec<AccountConfig> {
    let to_b = Some(vec!["B".to_owned()]);
    let service = |subject: &str| ServiceExport::new(subject);
    let measured = |subject: &str, sampling, report: &str| ServiceExport {
        latency: Some(ServiceLatency { subject: report.into(), sampling }),
        ..service(subject)
    };
    let a = AccountConfig::new("A")
        .export(StreamExport::new("s.>"))
        .export(StreamExport { subject: "priv.*".into(), accounts: to_b.clone() })
        .export(StreamExport::new("map.*.*"))
        .export(service("svc.one"))
        .export(service("svc.w.*"))
        .export(ServiceExport { response: ResponseKind::Stream, ..service("svc.st") })
        .export(ServiceExport { response: ResponseKind::Chunked, ..service("svc.ch") })
        .export(measured("svc.lat", LatencySampling::Headers, "lat.rep"))
        .export(measured("svc.lat2", LatencySampling::Percent(100), "lat2.rep"))
        .export(ServiceExport { response_threshold: Duration::from_millis(700), ..service("svc.thr") })
        .export(ServiceExport { accounts: to_b, ..service("svc.priv") })
        .export(service("deep.>"));
    let b = AccountConfig::new("B")
        .import(StreamImport::new("A", "s.>"))
        .import(StreamImport::new("A", "s.x.>").to("pre.s.x.>"))
        .import(StreamImport::new("A", "priv.*").to("my.*"))
        .import(StreamImport::new("A", "map.*.*").to("swap.$2.$1"))
        .import(ServiceImport::new("A", "svc.one"))
        .import(ServiceImport::new("A", "svc.one").to("local.one"))
        .import(ServiceImport::new("A", "svc.w.*").to("w.*"))
        .import(ServiceImport::new("A", "svc.st"))
        .import(ServiceImport::new("A", "svc.ch"))
        .import(ServiceImport { share: true, ..ServiceImport::new("A", "svc.lat") })
        .import(ServiceImport::new("A", "svc.lat2"))
        .import(ServiceImport::new("A", "svc.thr"))
        .import(ServiceImport::new("A", "svc.priv"))
        .import(ServiceImport::new("A", "deep.>").to("d.>"))
        .export(ServiceExport::new("svc.one"))
        .export(StreamExport::new("s.>"));
    let c = AccountConfig::new("C")
        .import(ServiceImport::new("B", "svc.one"))
        .import(StreamImport::new("B", "s.>").to("fromb.s.>"));
    vec![a, b, c]
}

fn response_users(users: StaticAuthenticator) -> StaticAuthenticator {
    let svc = || allow(&[], &["svc.>"]);
    let millis = |millis| Some(Duration::from_millis(millis));
    users
        .user("admin", "x", "$G", Permissions::unlimited())
        .user("one", "x", "$G", responding(allow(&["none.x"], &["svc.>"]), Some(1), TWO_MINUTES))
        .user("three", "x", "$G", responding(svc(), Some(3), millis(600)))
        .user("inf", "x", "$G", responding(svc(), None, millis(60_000)))
        .user("noexp", "x", "$G", responding(svc(), Some(2), None))
        .user(
            "dny",
            "x",
            "$G",
            responding(
                Permissions { publish: deny(&["in.>"], &[]).publish, ..allow(&[], &["svc.>"]) },
                Some(1),
                TWO_MINUTES,
            ),
        )
        .user("lim", "x", "$G", deny(&[], &["a.b"]))
}

/// `permissions.conf`, where an empty list means none.
fn permission_users(users: StaticAuthenticator) -> StaticAuthenticator {
    let empty = || SubjectRules { allow: Some(Vec::new()), deny: Vec::new() };
    let users_and_rights = [
        ("admin", Permissions::unlimited()),
        ("none", Permissions::unlimited()),
        ("empty-object", Permissions::unlimited()),
        ("pub-allow-list", publish(&["a", "b.*", "c.>"], &[])),
        ("pub-allow-string", publish(&["a"], &[])),
        ("pub-alias-export", allow(&["b"], &["a"])),
        ("pub-alias-pub-sub", allow(&["a"], &["b"])),
        ("pub-allow-empty-list", Permissions { publish: empty(), ..Permissions::default() }),
        ("pub-allow-obj-empty-list", Permissions { publish: empty(), subscribe: empty(), responses: None }),
        ("pub-deny-empty-list", Permissions::unlimited()),
        ("pub-deny-only", publish(&[], &["a.b", "x.>"])),
        ("pub-deny-over-allow", publish(&["a.>"], &["a.b", "a.c.*"])),
        ("pub-deny-all", publish(&[], &[">"])),
        ("pub-deny-all-allow-one", publish(&["a"], &[">"])),
        ("pub-reply-not-checked", publish(&["a"], &[])),
        ("sub-allow-list", subscribe(&["a", "b.*", "c.>"], &[])),
        ("sub-allow-foo-star", subscribe(&["foo.*"], &[])),
        ("sub-allow-foo-star-bar", subscribe(&["foo.*.bar"], &[])),
        ("sub-allow-star", subscribe(&["*"], &[])),
        ("sub-allow-two-cover", subscribe(&["foo.a", "foo.b"], &[])),
        ("sub-deny-literal", subscribe(&[], &["a.b"])),
        ("sub-deny-wild", subscribe(&[], &["a.*"])),
        ("sub-deny-full", subscribe(&[], &["a.>"])),
        ("sub-allow-deny", subscribe(&["a.>"], &["a.b.>"])),
        ("sub-queue-only", subscribe(&["foo q1"], &[])),
        ("sub-queue-star", subscribe(&["foo q.*"], &[])),
        ("sub-queue-gt", subscribe(&["foo q.>"], &[])),
        ("sub-queue-any", subscribe(&["foo >"], &[])),
        ("sub-queue-plain-plus", subscribe(&["foo", "foo q1"], &[])),
        ("sub-queue-wild-subject", subscribe(&["foo.* q1"], &[])),
        ("sub-queue-mixed-subjects", subscribe(&["foo.a q1", "foo.*"], &[])),
        ("sub-deny-queue", subscribe(&[], &["foo q1"])),
        ("sub-deny-queue-wild", subscribe(&[], &["foo *.bad"])),
        ("sub-deny-queue-gt", subscribe(&[], &["foo >"])),
        ("sub-allow-deny-queue", subscribe(&["foo"], &["foo q1"])),
        ("sub-deny-plain-vs-queue", subscribe(&[], &["foo"])),
        ("sub-allow-queue-deny-queue", subscribe(&["foo q.*"], &["foo q.bad"])),
        ("sub-inbox-own", allow(&["a"], &["_INBOX.u1.>"])),
        ("resp-true-no-publish", responding(allow(&[], &["svc.>"]), Some(1), TWO_MINUTES)),
        ("resp-true-publish-list", responding(publish(&["a"], &[]), Some(1), TWO_MINUTES)),
        ("resp-true-publish-deny-only", responding(publish(&[], &["b"]), Some(1), TWO_MINUTES)),
    ];
    users_and_rights.into_iter().fold(users, |users, (user, rights)| users.user(user, "x", "$G", rights))
}
