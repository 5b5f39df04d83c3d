//! WebSocket clients: as nats-server answered them, in clear text and through TLS.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::pki::{BOTH, Pki};
use common::ws::{Request, Ws, inflate, masked};
use common::{CONNECT, DEADLINE, Raw, golden_lines};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, ConnectRequest, ConnectionKind, Grant, IoEngine, Listener,
    OpenAuthenticator, Refusal, WebSocketSettings,
};
use nats_proto::websocket::{BINARY, CLOSE, COMPRESSED, CONTINUATION, Deflater, FINAL, PING};
use rustls::ClientConfig;
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;

/// CONNECT and PING of the recordings.
const GOLDEN_CONNECT: &str = "CONNECT {\"verbose\":true,\"protocol\":1,\"headers\":true}\r\nPING\r\n";

/// A broker with a WebSocket listener and one for plain clients.
struct World {
    broker: Broker,
    client: Option<Arc<ClientConfig>>,
}

impl World {
    fn start(settings: WebSocketSettings, with_tls: bool, authenticator: Arc<dyn Authenticator>) -> Self {
        Self::start_with(settings, with_tls, authenticator, BrokerConfig::default())
    }

    fn start_with(
        settings: WebSocketSettings,
        with_tls: bool,
        authenticator: Arc<dyn Authenticator>,
        mut config: BrokerConfig,
    ) -> Self {
        let pki = Pki::new();
        let addr = "127.0.0.1:0".parse().unwrap();
        let listener = match with_tls {
            true => Listener::tls(addr, pki.server_with(WebPkiClientVerifier::no_client_auth())),
            false => Listener::plain(addr),
        };
        config.listen = vec![listener.websocket(settings), common::loopback()];
        let broker = common::start(config, vec![AccountConfig::new("$G")], authenticator);
        Self { broker, client: with_tls.then(|| Arc::new(pki.client(None, BOTH))) }
    }

    fn open(settings: WebSocketSettings, with_tls: bool) -> Self {
        Self::start(settings, with_tls, Arc::new(OpenAuthenticator::default()))
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.broker.local_addr(0).unwrap()
    }

    async fn connect(&self) -> Ws {
        Ws::connect(self.addr(), self.client.clone()).await
    }

    async fn client(&self, request: &Request) -> Ws {
        Ws::open(self.addr(), self.client.clone(), request).await.0
    }
}

fn compressing() -> WebSocketSettings {
    WebSocketSettings { compression: true, ..WebSocketSettings::default() }
}

/// The request of a row of `handshake/`.
fn request_of(row: &Value) -> Request {
    let wanted = &row["request"];
    let mut request = Request::new();
    for (name, value) in wanted["hdr"].as_object().into_iter().flatten() {
        request = request.with(name, value.as_str().unwrap());
    }
    for name in wanted["drop"].as_array().into_iter().flatten() {
        request = request.without(name.as_str().unwrap());
    }
    let text = |key: &str, default: &str| wanted[key].as_str().unwrap_or(default).to_owned();
    Request { method: text("method", "GET"), path: text("path", "/"), version: text("ver", "HTTP/1.1"), ..request }
}

async fn check_handshake(world: &World, row: &Value) {
    let mut ws = world.connect().await;
    let answer = ws.request(&request_of(row)).await;
    assert_eq!(answer.status_line, row["status_line"], "{row}");
    let golden = row["headers"].as_object().unwrap();
    let mut names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    let mut golden_names: Vec<&str> = golden.keys().map(String::as_str).collect();
    names.sort_unstable();
    golden_names.sort_unstable();
    assert_eq!(names, golden_names, "{row}");
    for (name, value) in &answer.headers {
        // The key of the recordings is not known: their answers to it are.
        let expected = if name == "Sec-WebSocket-Accept" {
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        } else {
            golden[name].as_str().unwrap()
        };
        assert_eq!(value, expected, "{row}");
    }
    match row.get("body").and_then(Value::as_str) {
        Some(body) => assert_eq!(ws.raw.rest().await, body, "{row}"),
        None => assert!(ws.text_until("\r\n").await.starts_with("INFO {"), "{row}"),
    }
}

/// The bytes of a step. Long ones were recorded in part.
fn bytes_of(case: &str, step: &Value) -> Vec<u8> {
    let hex = step["sends_hex"].as_str().unwrap();
    if !hex.contains('…') {
        return (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    }
    let size = if case.contains("large-payload") { 70_000 } else { 9000 };
    let bytes = masked(FINAL | BINARY, format!("{GOLDEN_CONNECT}SUB a 1\r\nPUB a {size}\r\n{}\r\n", "x".repeat(size)));
    assert!(hex.ends_with(&format!("…{} bytes", bytes.len())), "{case}");
    bytes
}

/// Replaces INFO lines by their placeholders.
fn without_info(text: &str) -> String {
    let lines = text.split_inclusive("\r\n").map(|line| match line.starts_with("INFO {") {
        true if line.contains("connect_info") => "<INFO-CONNECT>\r\n",
        true => "<INFO>\r\n",
        false => line,
    });
    lines.collect()
}

async fn check_frames(world: &World, row: &Value) {
    let case = row["case"].as_str().unwrap();
    let is_browser = case.contains("browser");
    let request = if is_browser { Request::new().with("User-Agent", "Mozilla/5.0 (X11)") } else { Request::new() };
    let mut ws = world.connect().await;
    assert!(ws.request(&request).await.status_line.contains(" 101 "));
    for step in row["steps"].as_array().unwrap() {
        if step.get("sends_hex").is_some() {
            ws.raw.send(bytes_of(case, step)).await;
        }
        let mut expected: Vec<&Value> = step["receives"].as_array().unwrap().iter().collect();
        let control: Vec<&Value> = expected.extract_if(.., |frame| frame["first_byte"] != "0x82").collect();
        let text: String = expected.iter().map(|frame| frame["text"].as_str().unwrap()).collect();
        let mut seen = String::new();
        let mut frames = 0;
        while without_info(&seen) != text {
            assert!(seen.len() <= text.len() + 1000, "{case}: {:?}", without_info(&seen));
            let (first, payload) = ws.frame().await.unwrap_or_else(|| panic!("{case}: ended after {seen:?}"));
            assert_eq!(first, 0x82, "{case}");
            assert!(!is_browser || payload.len() <= 4096, "{case}");
            seen.push_str(&String::from_utf8(payload).unwrap());
            frames += 1;
        }
        assert!(!is_browser || text.len() < 9000 || frames >= 3, "{case}");
        for frame in &control {
            check_control(&ws.frame().await.unwrap(), frame, case);
        }
        if step["eof"] == true {
            check_end(&mut ws, !control.is_empty(), case).await;
        }
    }
    if ws.raw.is_over() {
        return;
    }
    // Nothing else had come.
    let text = without_info(&ws.sync().await);
    assert!(["PONG\r\n", "+OK\r\nPONG\r\n"].contains(&text.as_str()) || case == "frames/ws-ping", "{case}: {text}");
}

fn check_control(got: &(u8, Vec<u8>), golden: &Value, case: &str) {
    let (first, payload) = got;
    assert_eq!(format!("{first:#x}"), golden["first_byte"].as_str().unwrap(), "{case}");
    if let Some(body) = golden["body"].as_str() {
        assert_eq!(payload, body.as_bytes(), "{case}");
    } else if let Some(code) = golden["close_code"].as_u64() {
        assert_eq!(payload[..2], (code as u16).to_be_bytes(), "{case}");
        assert_eq!(payload[2..], *golden["close_text"].as_str().unwrap().as_bytes(), "{case}");
    } else {
        assert!(payload.is_empty(), "{case}");
    }
}

/// The stream ends. Where nats-server recorded nothing before it because it closed too soon for its own close frame, ours says
/// what was wrong.
async fn check_end(ws: &mut Ws, was_told: bool, case: &str) {
    let end = ws.frame().await;
    let is_silent = was_told || case == "frames/protocol-error";
    match &end {
        None => assert!(is_silent, "{case}: no close frame"),
        Some((first, payload)) => {
            assert!(!is_silent && *first == 0x88, "{case}: {end:?}");
            assert!([1002, 1007].contains(&u16::from_be_bytes([payload[0], payload[1]])), "{case}: {end:?}");
            assert!(ws.frame().await.is_none(), "{case}");
        }
    }
}

async fn check_compression(world: &World, row: &Value) {
    let case = row["case"].as_str().unwrap();
    let offer = match case {
        "compression/offer-both-no-context" => {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        }
        "compression/offer-max-window" => "permessage-deflate; client_max_window_bits",
        "compression/offer-other" => "x-webkit-deflate-frame",
        "compression/no-offer" => "",
        _ => "permessage-deflate",
    };
    let request = match offer {
        "" => Request::new(),
        offer => Request::new().with("Sec-WebSocket-Extensions", offer),
    };
    let mut ws = world.connect().await;
    let answer = ws.request(&request).await;
    assert!(answer.status_line.contains(" 101 "), "{case}");
    let (first, info) = ws.frame().await.unwrap();
    let is_compressed = first == 0xc2;
    if is_compressed {
        assert!(inflate(&info).starts_with(b"INFO {"), "{case}");
    }
    if let Some(golden) = row["info_frame_first_byte"].as_array() {
        assert_eq!(answer.header("Sec-WebSocket-Extensions"), row["extensions"].as_str(), "{case}");
        assert_eq!(format!("{first:#x}"), golden[0].as_str().unwrap(), "{case}");
        assert_eq!(is_compressed, row["inflated"][0] == true, "{case}");
        return;
    }
    ws.send(BINARY, CONNECT).await;
    let mut message = Vec::new();
    match case {
        "compression/big-and-small-out" => {
            let text = row["frames"][0]["text"].as_str().unwrap();
            let big = "z".repeat(200);
            ws.send(BINARY, format!("SUB a 1\r\nPUB a 200\r\n{big}\r\nPUB a 3\r\nabc\r\nPING\r\n")).await;
            let (first, payload) = ws.frame().await.unwrap();
            assert_eq!(first, 0xc2);
            assert_eq!(String::from_utf8(inflate(&payload)).unwrap(), text);
        }
        "compression/compressed-in" => {
            Deflater::default().deflate(b"PING\r\n", &mut message);
            ws.raw.send(masked(FINAL | COMPRESSED | BINARY, message)).await;
            assert_eq!(ws.frame().await.unwrap(), (0x82, b"PONG\r\n".to_vec()), "{row}");
        }
        "compression/corrupt-in" => {
            ws.raw.send(masked(FINAL | COMPRESSED | BINARY, [0xff; 20])).await;
            check_end(&mut ws, false, case).await;
        }
        other => panic!("{other}"),
    }
}

async fn check_origin(world: &World, row: &Value) {
    let mut request = Request::new().with("Host", &world.addr().to_string());
    let mut expected = row["status"].as_str().unwrap();
    if let Some(origin) = row["origin"].as_str() {
        let mut origin = origin.replace("<host>:<port>", &world.addr().to_string());
        if world.client.is_some() && row["case"] == "origin/same-origin" {
            // The listener's own origin begins with https.
            origin = match origin.split_once("://") {
                Some(("http", rest)) => format!("https://{rest}"),
                Some((_, rest)) => format!("http://{rest}"),
                None => origin,
            };
        }
        request = request.with("Origin", &origin);
    }
    let mut ws = world.connect().await;
    let answer = ws.request(&request).await;
    if expected.contains(" 101 ") {
        expected = "HTTP/1.1 101 Switching Protocols";
    }
    assert_eq!(answer.status_line, expected, "{row}");
    if let Some(body) = row["body"].as_str() {
        assert_eq!(ws.raw.rest().await, body, "{row}");
    }
}

/// Users of WebSocket clients of their own, as `websocket { authorization }` makes them.
struct OwnUsers;

#[async_trait]
impl Authenticator for OwnUsers {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        let wanted = if request.kind == ConnectionKind::WebSocket { "w" } else { "t" };
        if request.connect.user == wanted && request.connect.pass == "p" {
            return Ok(Grant::new("$G"));
        }
        Err(Refusal { reason: "bad_password", detail: "wrong user or password".to_owned(), claimed: None })
    }
}

async fn check_auth(world: &World, row: &Value) {
    let request = match row["cookie"].as_str() {
        Some(cookie) => Request::new().with("Cookie", cookie),
        None => Request::new(),
    };
    let mut ws = world.client(&request).await;
    let user =
        row["connect_user"].as_str().map(|user| format!(",\"user\":\"{user}\",\"pass\":\"p\"")).unwrap_or_default();
    ws.send(BINARY, format!("CONNECT {{\"verbose\":true{user}}}\r\nPING\r\n")).await;
    let frames = row["frames"].as_array().unwrap();
    assert_eq!(
        ws.text_until("\r\n").await.split("\r\n").next(),
        frames[0]["text"].as_str().unwrap().split("\r\n").next()
    );
    if let Some(close) = frames.get(1) {
        check_control(&ws.frame().await.unwrap(), close, "auth");
        assert!(ws.frame().await.is_none());
    }
}

async fn golden_rows(with_tls: bool, io_engine: IoEngine) -> usize {
    let start = |settings, authenticator| {
        World::start_with(settings, with_tls, authenticator, BrokerConfig { io_engine, ..BrokerConfig::default() })
    };
    let open = |settings| start(settings, Arc::new(OpenAuthenticator::default()));
    let plain = open(WebSocketSettings::default());
    let compressing = open(compressing());
    let same_origin = open(WebSocketSettings { same_origin: true, ..WebSocketSettings::default() });
    let allowed = vec!["http://ok.example".to_owned(), "https://ok2.example:8443".to_owned()];
    let some_origins = open(WebSocketSettings { allowed_origins: allowed, ..WebSocketSettings::default() });
    let cookies = WebSocketSettings {
        user_cookie: Some("uc".into()),
        pass_cookie: Some("pc".into()),
        ..WebSocketSettings::default()
    };
    let own_users = start(cookies, Arc::new(OwnUsers));
    let mut rows = 0;
    for row in golden_lines("websocket.jsonl") {
        let case = row["case"].as_str().unwrap();
        match case.split_once('/').unwrap() {
            ("handshake", _) => check_handshake(&plain, &row).await,
            ("frames", _) => check_frames(&plain, &row).await,
            ("compression", _) => check_compression(&compressing, &row).await,
            ("origin", "same-origin") => check_origin(&same_origin, &row).await,
            ("origin", _) => check_origin(&some_origins, &row).await,
            ("auth", _) => check_auth(&own_users, &row).await,
            _ => panic!("{case}"),
        }
        rows += 1;
    }
    for world in [plain, compressing, same_origin, some_origins, own_users] {
        world.broker.shutdown().await;
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_websocket_rows() {
    assert_eq!(golden_rows(false, IoEngine::default()).await, 69);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_websocket_rows_through_tls() {
    assert_eq!(golden_rows(true, IoEngine::default()).await, 69);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_websocket_rows_on_the_runtime() {
    assert_eq!(golden_rows(false, IoEngine::Runtime).await, 69);
}

/// Messages of every size between WebSocket clients and others, with and without compression and TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_between_websocket_and_others() {
    for (with_tls, settings) in [(false, WebSocketSettings::default()), (false, compressing()), (true, compressing())] {
        let world = World::open(settings, with_tls);
        let browser = Request::new().with("User-Agent", "Mozilla/5.0");
        let offering = Request::new().with("Sec-WebSocket-Extensions", "permessage-deflate");
        for request in [Request::new(), browser, offering] {
            let mut ws = world.client(&request).await;
            ws.send(BINARY, format!("{CONNECT}SUB in 1\r\n")).await;
            ws.sync().await;
            let mut plain = Raw::connect(world.broker.local_addr(1).unwrap()).await;
            plain.send(format!("{CONNECT}SUB out 1\r\n")).await;
            plain.sync().await;
            for size in [0, 1, 64, 65, 4096, 65_536, 300_000, 1_048_576] {
                let payload: String = (0..size).map(|at| char::from(b'a' + (at % 7) as u8)).collect();
                ws.send(BINARY, format!("PUB out {size}\r\n{payload}\r\n")).await;
                plain.expect(format!("MSG out 1 {size}\r\n{payload}\r\n")).await;
                plain.send(format!("PUB in {size}\r\n{payload}\r\n")).await;
                let expected = format!("MSG in 1 {size}\r\n{payload}\r\n");
                let mut seen = String::new();
                while seen.len() < expected.len() {
                    seen.push_str(&next_text(&mut ws).await);
                }
                assert_eq!(seen, expected);
            }
        }
        world.broker.shutdown().await;
    }
}

/// The text of the next message, in however many frames.
async fn next_text(ws: &mut Ws) -> String {
    let (first, mut payload) = ws.frame().await.unwrap();
    if first & 0x80 == 0 {
        loop {
            let (next, more) = ws.frame().await.unwrap();
            payload.extend(more);
            if next & 0x80 != 0 {
                break;
            }
        }
    }
    String::from_utf8(if first & COMPRESSED != 0 { inflate(&payload) } else { payload }).unwrap()
}

/// A fan-out to readers that are slow: their sockets are full, others write for them, frames stay whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_over_websocket_arrives_whole_and_in_order() {
    for with_tls in [false, true] {
        let world = World::open(compressing(), with_tls);
        let offering = Request::new().with("Sec-WebSocket-Extensions", "permessage-deflate");
        let mut readers = tokio::task::JoinSet::new();
        for request in [Request::new(), offering, Request::new().with("User-Agent", "Mozilla/5.0")] {
            let mut ws = world.client(&request).await;
            ws.send(BINARY, format!("{CONNECT}SUB n 1\r\n")).await;
            ws.sync().await;
            readers.spawn(async move {
                let mut seen = String::new();
                for number in 0..20_000 {
                    let expected = format!("MSG n 1 100\r\n{number:0100}\r\n");
                    while seen.len() < expected.len() {
                        seen.push_str(&next_text(&mut ws).await);
                    }
                    assert!(seen.starts_with(&expected), "{number}: {:?}", &seen[..expected.len()]);
                    seen.drain(..expected.len());
                }
            });
        }
        let mut sender = world.client(&Request::new()).await;
        for block in 0..40 {
            let lines: String = (0..500).map(|line| format!("PUB n 100\r\n{:0100}\r\n", block * 500 + line)).collect();
            sender.send(BINARY, lines).await;
        }
        tokio::time::timeout(DEADLINE, readers.join_all()).await.unwrap();
        world.broker.shutdown().await;
    }
}

/// Everything in one read: the request, CONNECT, a message and the goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_of_a_client_that_says_all_at_once() {
    let world = World::start(WebSocketSettings::default(), false, Arc::new(OwnUsers));
    let mut plain = Raw::connect(world.broker.local_addr(1).unwrap()).await;
    plain.send(format!("{}SUB a 1\r\n", common::connect_as("t", "p"))).await;
    plain.sync().await;
    let mut ws = world.connect().await;
    let mut bytes = Request::new().to_text().into_bytes();
    bytes.extend(masked(BINARY, common::connect_as("w", "p")));
    bytes.extend(masked(FINAL | CONTINUATION, "PUB a 2\r\nhi\r\n"));
    bytes.extend(masked(FINAL | CLOSE, b"\x03\xe8"));
    ws.raw.send(bytes).await;
    plain.expect("MSG a 1 2\r\nhi\r\n").await;
    let rest = ws.raw.rest().await;
    assert!(rest.ends_with("\u{88}\u{2}\u{3}\u{e8}") || rest.ends_with("\u{2}\u{3}\u{fffd}"), "{rest:?}");
    world.broker.shutdown().await;
}

/// How connections end: the close frame names the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_frames_name_the_reason() {
    let config =
        BrokerConfig { auth_timeout: Duration::from_millis(100), max_control_line: 256, ..BrokerConfig::default() };
    let world = World::start_with(WebSocketSettings::default(), false, Arc::new(OwnUsers), config);
    let connect = common::connect_as("w", "p");
    let long = format!("{connect}SUB {} 1\r\n", "a".repeat(300));
    for (sent, error, code, text) in [
        ("", "Authentication Timeout", 1008, "Authentication Timeout"),
        ("CONNECT {\"user\":\"x\"}\r\n", "Authorization Violation", 1008, "Authentication Failure"),
        (&long, "maximum control line exceeded", 1008, "Maximum Control Line Exceeded"),
        ("CONNECT {\"protocol\":7}\r\n", "invalid client protocol", 1002, "Bad Client Protocol Version"),
    ] {
        let mut ws = world.client(&Request::new()).await;
        if !sent.is_empty() {
            ws.send(BINARY, sent).await;
        }
        assert_eq!(ws.text_until("\r\n").await, format!("-ERR '{error}'\r\n"));
        let (first, payload) = ws.frame().await.unwrap();
        assert_eq!((first, &payload[..2], &payload[2..]), (0x88, &u16::to_be_bytes(code)[..], text.as_bytes()));
        assert!(ws.frame().await.is_none());
    }
    let mut ws = world.client(&Request::new()).await;
    ws.send(BINARY, &connect).await;
    ws.sync().await;
    world.broker.shutdown().await;
    assert_eq!(ws.frame().await.unwrap(), (0x88, b"\x03\xe9Server Shutdown".to_vec()));
}

/// A request that does not end, or not in time, or is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests_end_at_their_deadline() {
    let settings = WebSocketSettings { handshake_timeout: Duration::from_millis(100), ..WebSocketSettings::default() };
    for with_tls in [false, true] {
        let world = World::open(settings.clone(), with_tls);
        for sent in ["", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut ws = world.connect().await;
            ws.raw.send(sent).await;
            assert_eq!(ws.raw.rest().await, "", "{sent:?}");
        }
        let mut ws = world.connect().await;
        ws.raw.send(format!("GET / HTTP/1.1\r\nCookie: {}", "c".repeat(40_000))).await;
        assert!(ws.raw.rest().await.starts_with("HTTP/1.1 431 "));
        let mut ws = world.connect().await;
        ws.raw.send(CONNECT.to_owned() + "\r\n").await;
        assert!(ws.raw.rest().await.starts_with("HTTP/1.1 400 "));
        world.broker.shutdown().await;
    }
}

/// A compressed message may hold a CONNECT before login, and eight times the largest message afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_messages_are_bounded() {
    let config = BrokerConfig { max_payload: 64 << 10, ..BrokerConfig::default() };
    let world = World::start_with(compressing(), false, Arc::new(OwnUsers), config);
    let offering = Request::new().with("Sec-WebSocket-Extensions", "permessage-deflate");
    let compressed = |content: &str| {
        let mut message = Vec::new();
        Deflater::default().deflate(content.as_bytes(), &mut message);
        masked(FINAL | COMPRESSED | BINARY, message)
    };
    let pings = |bytes: usize| "PING\r\n".repeat(bytes / 6);
    let connect = common::connect_as("w", "p");
    let mut ws = world.client(&offering).await;
    ws.raw.send(compressed(&(connect.clone() + &pings(200 << 10)))).await;
    let (first, payload) = ws.frame().await.unwrap();
    assert_eq!((first, &payload[..2]), (0x88, &1009_u16.to_be_bytes()[..]));
    let mut ws = world.client(&offering).await;
    ws.raw.send(compressed(&connect)).await;
    ws.raw.send(compressed(&pings(500 << 10))).await;
    let mut pongs = 0;
    while pongs < (500 << 10) / 6 {
        pongs += next_text(&mut ws).await.matches("PONG").count();
    }
    ws.raw.send(compressed(&pings(520 << 10))).await;
    loop {
        let (first, payload) = ws.frame().await.unwrap();
        if first == 0x88 {
            assert_eq!(payload[..2], 1009_u16.to_be_bytes());
            break;
        }
    }
    world.broker.shutdown().await;
}

/// The name of a WebSocket client is that of its listener, pings are answered between messages, a lame duck is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn info_names_the_websocket_address() {
    let config = BrokerConfig { client_advertise: Some("nats.example.net:4222".into()), ..BrokerConfig::default() };
    let open = Arc::new(OpenAuthenticator::default());
    let world = World::start_with(WebSocketSettings::default(), false, open, config);
    let (mut ws, info) = Ws::open(world.addr(), None, &Request::new()).await;
    let port = format!("\"host\":\"127.0.0.1\",\"port\":{},", world.addr().port());
    assert!(info.contains(&port) && !info.contains("tls_") && !info.contains("connect_urls"), "{info}");
    ws.send(PING, "?").await;
    assert_eq!(ws.frame().await.unwrap(), (0x8a, b"?".to_vec()));
    ws.send(BINARY, "CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n").await;
    let mut text = String::new();
    while !text.contains("connect_info") {
        text.push_str(&next_text(&mut ws).await);
    }
    let cid = world.broker.connections("$G")[0].cid;
    let connz = world.broker.monitor().connz(&nats_broker::monitor::ConnzQuery::default()).unwrap();
    assert_eq!(connz.connections[0].client_type, "websocket");
    assert!(world.broker.lame_duck_client(cid));
    assert!(ws.text_until("\r\n").await.contains("\"ldm\":true"));
    world.broker.shutdown().await;
    let world = World::open(WebSocketSettings::default(), true);
    let (_, info) = Ws::open(world.addr(), world.client.clone(), &Request::new()).await;
    assert!(info.contains("\"tls_required\":true"), "{info}");
    world.broker.shutdown().await;
}
