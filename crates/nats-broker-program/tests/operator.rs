//! Operator mode through the real program: tokens made here, users that log in with them.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
mod common;

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::wire::receive;
use common::{Raw, Running, output};
use nix::sys::signal::Signal;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

const OK: &str = "+OK\r\nPONG\r\n<INFO-CONNECT>\r\n";
const VIOLATION: &str = "-ERR 'Authorization Violation'\r\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn key(kind: KeyPairType, number: u8) -> KeyPair {
    KeyPair::new_from_raw(kind, [number; 32]).unwrap()
}

/// A signed token; `more` is laid over the usual claims.
fn token(issuer: &KeyPair, subject: &str, kind: &str, mut nats: Value, more: Value) -> String {
    nats["type"] = kind.into();
    nats["version"] = 2.into();
    let mut claims =
        json!({"jti": "X", "iat": now(), "iss": issuer.public_key(), "sub": subject, "name": kind, "nats": nats});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}).to_string());
    let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// The same claims as a token of version 1: the kind beside `nats`, another algorithm, and only the claims are signed.
fn first_version(issuer: &KeyPair, token: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    let nats = claims["nats"].as_object_mut().unwrap();
    nats.remove("version");
    let kind = nats.remove("type").unwrap();
    if nats.is_empty() {
        claims.as_object_mut().unwrap().remove("nats");
    }
    claims["type"] = kind;
    let header = URL_SAFE_NO_PAD.encode(json!({"typ": "jwt", "alg": "ed25519"}).to_string());
    let text = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{header}.{text}.{signature}")
}

/// An operator with three accounts: `A` exports, `B` imports, `S` is the system account.
struct World {
    operator: KeyPair,
    a: KeyPair,
    b: KeyPair,
    system: KeyPair,
    /// Issues users of `A`.
    signer: KeyPair,
    /// Issues users of `A` with the rights of a template.
    scoped: KeyPair,
    user: KeyPair,
}

impl World {
    fn new() -> Self {
        Self {
            operator: key(KeyPairType::Operator, 1),
            a: key(KeyPairType::Account, 2),
            b: key(KeyPairType::Account, 3),
            system: key(KeyPairType::Account, 4),
            signer: key(KeyPairType::Account, 5),
            scoped: key(KeyPairType::Account, 6),
            user: key(KeyPairType::User, 7),
        }
    }

    fn account(&self, account: &KeyPair, mut nats: Value) -> String {
        if nats.get("limits").is_none() {
            nats["limits"] = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
        }
        token(&self.operator, &account.public_key(), "account", nats, json!({}))
    }

    /// Claims of `A`.
    fn exporter(&self) -> Value {
        let template = json!({"pub": {"allow": ["t.{{name()}}.>"]}, "sub": {"allow": ["_INBOX.>", "t.{{tag(team)}}"]}, "subs": -1, "data": -1, "payload": -1});
        json!({
            "exports": [
                {"name": "s", "subject": "s.>", "type": "stream"},
                {"name": "q", "subject": "q", "type": "service"},
                {"name": "p", "subject": "private.>", "type": "stream", "token_req": true},
            ],
            "signing_keys": [
                self.signer.public_key(),
                {"kind": "user_scope", "key": self.scoped.public_key(), "role": "r", "template": template},
            ],
            "default_permissions": {"pub": {"deny": ["denied"]}, "sub": {}},
        })
    }

    fn importer(&self) -> Value {
        let (a, b) = (self.a.public_key(), self.b.public_key());
        let activation = token(&self.a, &b, "activation", json!({"subject": "private.>", "kind": "stream"}), json!({}));
        json!({"imports": [
            {"name": "s", "subject": "s.>", "account": a, "type": "stream", "local_subject": "from.a.>"},
            {"name": "q", "subject": "q", "account": a, "type": "service", "local_subject": "ask"},
            {"name": "p", "subject": "private.>", "account": a, "type": "stream", "token": activation},
        ]})
    }

    fn config(&self, exporter: Value) -> String {
        let system = self.system.public_key();
        let operator = token(
            &self.operator,
            &self.operator.public_key(),
            "operator",
            json!({"system_account": system}),
            json!({}),
        );
        format!(
            "operator: {operator}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  {}: {}\n  {system}: {}\n}}\n",
            self.a.public_key(),
            self.account(&self.a, exporter),
            self.b.public_key(),
            self.account(&self.b, self.importer()),
            self.account(&self.system, json!({})),
        )
    }

    /// A token of the user with the usual claims.
    fn user_token(&self, issuer: &KeyPair, nats: Value, more: Value) -> String {
        let mut usual = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        if issuer.public_key() == self.scoped.public_key() {
            // Limits come from the template as rights do.
            usual = json!({"pub": {}, "sub": {}});
        }
        for (name, value) in nats.as_object().unwrap() {
            usual[name] = value.clone();
        }
        token(issuer, &self.user.public_key(), "user", usual, more)
    }

    fn login(&self, addr: SocketAddr, jwt: &str) -> Raw {
        let (mut raw, info) = Raw::connect(addr);
        let nonce = info["nonce"].as_str().unwrap();
        let sig = URL_SAFE_NO_PAD.encode(self.user.sign(nonce.as_bytes()).unwrap());
        let connect =
            json!({"verbose": true, "protocol": 1, "jwt": jwt, "sig": sig, "headers": true, "no_responders": true});
        raw.send(format!("CONNECT {connect}\r\nPING\r\n").as_bytes());
        raw
    }

    /// A user of an account that is let in.
    fn member(&self, addr: SocketAddr, account: &KeyPair) -> Raw {
        let mut raw = self.login(addr, &self.user_token(account, json!({}), json!({})));
        receive(&mut raw, OK).unwrap();
        raw
    }
}

#[test]
fn tokens_are_believed_or_not() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), &world.config(world.exporter()));
    let addr = program.clients();
    let a = &world.a;
    let public = a.public_key();
    let of_a = json!({"issuer_account": public});
    let with = |more: Value| {
        let mut nats = of_a.clone();
        nats.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        nats
    };
    let stranger = key(KeyPairType::Account, 99);
    let user = |issuer: &KeyPair, nats: Value, more: Value| world.user_token(issuer, nats, more);
    let none = || json!({});
    for (name, jwt, answer) in [
        ("issued by the account", user(a, none(), none()), OK),
        ("issued by a signing key", user(&world.signer, of_a.clone(), none()), OK),
        ("signing key without the account", user(&world.signer, none(), none()), VIOLATION),
        ("a stranger's", user(&stranger, none(), none()), VIOLATION),
        ("a stranger's that names the account", user(&stranger, of_a.clone(), none()), VIOLATION),
        ("another account's key", user(&world.b, of_a.clone(), none()), VIOLATION),
        ("expired", user(a, none(), json!({"exp": now() - 5})), VIOLATION),
        ("not yet", user(a, none(), json!({"nbf": now() + 500})), VIOLATION),
        ("ends later", user(a, none(), json!({"exp": now() + 500})), OK),
        ("from this machine", user(a, json!({"src": ["10.0.0.0/8", "127.0.0.0/8"]}), none()), OK),
        ("from elsewhere", user(a, json!({"src": ["10.0.0.0/8"]}), none()), VIOLATION),
        ("over websocket only", user(a, json!({"allowed_connection_types": ["WEBSOCKET"]}), none()), VIOLATION),
        ("all day", user(a, json!({"times": [{"start": "00:00:00", "end": "23:59:59"}]}), none()), OK),
        ("template", user(&world.scoped, of_a.clone(), json!({"name": "me"})), OK),
        ("template and own rights", user(&world.scoped, with(json!({"pub": {"allow": [">"]}})), none()), VIOLATION),
        ("of another kind", token(a, &world.user.public_key(), "account", none(), none()), VIOLATION),
        ("nothing", String::new(), VIOLATION),
        ("no token", "eyJ.eyJ.e".to_owned(), VIOLATION),
    ] {
        let mut raw = world.login(addr, &jwt);
        receive(&mut raw, answer).unwrap_or_else(|error| panic!("{name}: {error}\n{:#?}", program.log));
        if answer == VIOLATION {
            assert_eq!(raw.end(), "", "{name}");
        }
    }
    let tampered = user(a, none(), none()).replacen('.', ".e", 1);
    let mut raw = world.login(addr, &tampered);
    receive(&mut raw, VIOLATION).unwrap();
}

#[test]
fn tokens_of_the_first_version_are_read() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let operator = token(&world.operator, &world.operator.public_key(), "operator", json!({}), json!({}));
    let account = world.account(&world.a, json!({}));
    let config = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
        first_version(&world.operator, &operator),
        world.a.public_key(),
        first_version(&world.operator, &account)
    );
    let mut program = Running::configured(dir.path(), &config);
    let addr = program.clients();
    let user = world.user_token(&world.a, json!({}), json!({}));
    let first = first_version(&world.a, &user);
    let (header, rest) = first.split_once('.').unwrap();
    // Claims of one version under the header of the other are nobody's.
    let mixed = format!("{}.{rest}", user.split('.').next().unwrap());
    let other = format!("{header}.{}", user.split_once('.').unwrap().1);
    for (jwt, answer) in [(&first, OK), (&user, OK), (&mixed, VIOLATION), (&other, VIOLATION)] {
        let mut raw = world.login(addr, jwt);
        receive(&mut raw, answer).unwrap();
    }
}

#[test]
fn imports_of_places_for_others_are_left_out() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let a = world.a.public_key();
    let b = world.b.public_key();
    let position = json!({"name": "x", "subject": "mon.*.x", "type": "stream", "account_token_position": 2});
    let import = |key: &str, to: &str| json!({"name": "x", "subject": format!("mon.{key}.x"), "account": a, "type": "stream", "local_subject": to});
    let operator = token(&world.operator, &world.operator.public_key(), "operator", json!({}), json!({}));
    let exporter = world.account(&world.a, json!({"exports": [position]}));
    let importer = world.account(&world.b, json!({"imports": [import(&b, "mine"), import(&a, "theirs")]}));
    let config =
        format!("operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {a}: {exporter}, {b}: {importer} }}\n");
    let mut program = Running::configured(dir.path(), &config);
    program.wait_for("without its own key in it: left out");
    let addr = program.clients();
    let mut publisher = world.member(addr, &world.a);
    let mut subscriber = world.member(addr, &world.b);
    subscriber.send(b"SUB > 1\r\nPING\r\n");
    receive(&mut subscriber, "+OK\r\nPONG\r\n").unwrap();
    publisher.send(format!("PUB mon.{a}.x 0\r\n\r\nPUB mon.{b}.x 0\r\n\r\n").as_bytes());
    receive(&mut publisher, "+OK\r\n+OK\r\n").unwrap();
    receive(&mut subscriber, "MSG mine 1 0\r\n\r\n").unwrap();
}

#[test]
fn the_nonce_must_be_signed_but_for_bearers() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), &world.config(world.exporter()));
    let addr = program.clients();
    let bearer = world.user_token(&world.a, json!({"bearer_token": true}), json!({}));
    let other = world.user_token(&world.a, json!({}), json!({}));
    for (jwt, answer) in [(&bearer, OK), (&other, VIOLATION)] {
        let (mut raw, _) = Raw::connect(addr);
        let connect = json!({"verbose": true, "protocol": 1, "jwt": jwt});
        raw.send(format!("CONNECT {connect}\r\nPING\r\n").as_bytes());
        receive(&mut raw, answer).unwrap();
    }
    let mut exporter = world.exporter();
    exporter["limits"] = json!({"subs": -1, "conn": -1, "payload": -1, "data": -1, "disallow_bearer": true});
    let mut program = Running::configured(dir.path(), &world.config(exporter));
    let mut raw = world.login(program.clients(), &bearer);
    receive(&mut raw, VIOLATION).unwrap();
}

#[test]
fn rights_come_from_the_user_the_template_or_the_account() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), &world.config(world.exporter()));
    let addr = program.clients();
    let a = &world.a;
    let own = json!({"pub": {"allow": ["ok.>"], "deny": ["ok.not"]}, "sub": {"allow": ["in"]}});
    let tagged = json!({"issuer_account": a.public_key(), "tags": ["team:red", "team:blue"]});
    for (name, jwt, allowed, denied) in [
        (
            "own",
            world.user_token(a, own, json!({})),
            &["PUB ok.x", "SUB in"][..],
            &["PUB ok.not", "PUB x", "SUB x"][..],
        ),
        ("account", world.user_token(a, json!({}), json!({})), &["PUB x", "SUB >"], &["PUB denied"]),
        (
            "template",
            world.user_token(&world.scoped, tagged, json!({"name": "me"})),
            &["PUB t.me.x", "SUB t.red", "SUB t.blue"],
            &["PUB t.you.x", "PUB x", "SUB t.green"],
        ),
    ] {
        let mut raw = world.login(addr, &jwt);
        receive(&mut raw, OK).unwrap();
        for (operations, is_allowed) in [(allowed, true), (denied, false)] {
            for operation in operations {
                let (verb, subject) = operation.split_once(' ').unwrap();
                let (line, what) = match verb {
                    "PUB" => (format!("{operation} 0\r\n\r\n"), "Publish"),
                    _ => (format!("{operation} 9\r\nUNSUB 9\r\n"), "Subscription"),
                };
                raw.send(line.as_bytes());
                let ok = if verb == "PUB" { "+OK\r\n" } else { "+OK\r\n+OK\r\n" };
                let error = format!("-ERR 'Permissions Violation for {what} to \"{subject}\"'\r\n");
                let error = if verb == "PUB" { error } else { format!("{error}+OK\r\n") };
                receive(&mut raw, if is_allowed { ok } else { &error })
                    .unwrap_or_else(|error| panic!("{name} {operation}: {error}"));
            }
        }
    }
}

#[test]
fn accounts_share_what_their_tokens_say() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), &world.config(world.exporter()));
    let addr = program.clients();
    let mut exporter = world.member(addr, &world.a);
    let mut importer = world.member(addr, &world.b);
    importer.send(b"SUB from.a.> 1\r\nSUB private.> 2\r\nSUB in 3\r\nPING\r\n");
    receive(&mut importer, "+OK\r\n+OK\r\n+OK\r\nPONG\r\n").unwrap();
    exporter.send(b"SUB q 1\r\nPUB s.x 0\r\n\r\nPUB private.y 0\r\n\r\n");
    receive(&mut exporter, "+OK\r\n+OK\r\n+OK\r\n").unwrap();
    receive(&mut importer, "MSG from.a.x 1 0\r\n\r\nMSG private.y 2 0\r\n\r\n").unwrap();
    importer.send(b"PUB ask in 0\r\n\r\n");
    receive(&mut importer, "+OK\r\n").unwrap();
    let request = exporter.line();
    assert!(request.starts_with("HMSG q 1 _R_."), "{request}");
    // The system account of the operator answers its users.
    let mut system = world.member(addr, &world.system);
    system.send(b"SUB r 1\r\nPUB $SYS.REQ.USER.INFO r 0\r\n\r\n");
    assert_eq!(system.line(), "+OK");
    assert_eq!(system.line(), "+OK");
    assert!(system.line().starts_with("MSG r 1 "), "a reply");
    let reply: Value = serde_json::from_str(&system.line()).unwrap();
    assert_eq!(reply["data"]["account"], world.system.public_key());
    assert_eq!(reply["data"]["user"], world.user.public_key());
}

#[test]
fn the_end_of_a_token_is_the_end_of_its_connection() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), &world.config(world.exporter()));
    let mut raw = world.login(program.clients(), &world.user_token(&world.a, json!({}), json!({"exp": now() + 2})));
    receive(&mut raw, OK).unwrap();
    assert_eq!(raw.end(), "-ERR 'User Authentication Expired'\r\n");
}

#[test]
fn a_reload_ends_revoked_users_and_those_of_lost_accounts() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), &world.config(world.exporter()));
    let addr = program.clients();
    let mut a = world.member(addr, &world.a);
    let mut b = world.member(addr, &world.b);
    let mut revoking = world.exporter();
    revoking["revocations"] = json!({world.user.public_key(): now()});
    std::fs::write(dir.path().join("test.conf"), world.config(revoking)).unwrap();
    program.signal(Signal::SIGHUP);
    program.wait_for("Reloaded server configuration");
    let text = a.end();
    assert!(text == VIOLATION || text == "-ERR 'User Authentication Revoked'\r\n", "{text}");
    b.send(b"PING\r\n");
    receive(&mut b, "PONG\r\n").unwrap();
    let mut again = world.login(addr, &world.user_token(&world.a, json!({}), json!({"iat": now() - 10})));
    receive(&mut again, VIOLATION).unwrap();
}

#[test]
fn settings_that_cannot_be_believed_name_their_place() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let good = world.config(world.exporter());
    let stranger = key(KeyPairType::Operator, 77);
    let other_operator = token(&stranger, &stranger.public_key(), "operator", json!({}), json!({}));
    let mut lines: Vec<&str> = good.lines().collect();
    let operator_line = format!("operator: {other_operator}");
    lines[0] = &operator_line;
    for (config, place, text) in [
        (lines.join("\n"), "c.conf:4:", "is not trusted"),
        (good.replace("resolver: MEMORY\n", ""), "c.conf:", "resolver"),
        (good.replace("operator: eyJ", "operator: eyJx"), "c.conf:1:", "not believed"),
        (format!("{good}authorization {{ user: a, password: b }}\n"), "c.conf:", "operator mode"),
        (format!("{good}system_account: AAAA\n"), "c.conf:8:", "system account"),
        ("operator: /nowhere\nresolver: MEMORY\n".to_owned(), "c.conf:1:", "/nowhere"),
    ] {
        std::fs::write(dir.path().join("c.conf"), &config).unwrap();
        let said = output(dir.path(), &["-t", "-c", "c.conf"]);
        let is_right = said.code == Some(1) && said.stderr.contains(place) && said.stderr.contains(text);
        assert!(is_right, "{text}: {said:?}");
    }
    // A file with lines around the token.
    let operator = good.lines().next().unwrap().strip_prefix("operator: ").unwrap();
    std::fs::write(
        dir.path().join("op.jwt"),
        format!("-----BEGIN NATS OPERATOR JWT-----\n{operator}\n------END NATS OPERATOR JWT------\n"),
    )
    .unwrap();
    let mut lines: Vec<&str> = good.lines().collect();
    lines[0] = "operator: op.jwt";
    std::fs::write(dir.path().join("c.conf"), lines.join("\n")).unwrap();
    let said = output(dir.path(), &["-t", "-c", "c.conf"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}
