//! A whole fleet at once, and peers that begin and never finish: who is connected does not notice, who means it
//! gets in.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::pki::{BOTH, Pki, provider};
use common::{CONNECT, DEADLINE, Raw};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, ConnectRequest, ExclusiveClaim, Grant, Listener, Observer,
    OpenAuthenticator, Refusal,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig, SignatureAlgorithm, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Threads of the broker.
const THREADS: usize = 2;

/// What a signature costs and whether any is made yet.
#[derive(Debug)]
struct Work {
    each: Duration,
    /// While set, no signature gets done.
    is_held: AtomicBool,
    signed: AtomicUsize,
}

/// A key whose signatures take as long as a test wants, so that handshakes cost the same on every machine.
#[derive(Debug)]
struct Toil {
    key: Arc<dyn SigningKey>,
    work: Arc<Work>,
}

impl SigningKey for Toil {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.key.choose_scheme(offered)?;
        Some(Box::new(ToilingSigner { signer, work: Arc::clone(&self.work) }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[derive(Debug)]
struct ToilingSigner {
    signer: Box<dyn Signer>,
    work: Arc<Work>,
}

impl Signer for ToilingSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        std::thread::sleep(self.work.each);
        while self.work.is_held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.work.signed.fetch_add(1, Ordering::Relaxed);
        self.signer.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}

/// Counts refusals by reason.
#[derive(Default)]
struct Reasons(Mutex<BTreeMap<&'static str, usize>>);

impl Observer for Reasons {
    fn refused(&self, _: Option<SocketAddr>, refusal: &Refusal) {
        *self.0.lock().unwrap().entry(refusal.reason).or_default() += 1;
    }
}

/// A broker on threads of its own, as it runs as a program.
struct World {
    pki: Pki,
    broker: Broker,
    work: Arc<Work>,
    reasons: Arc<Reasons>,
    runtime: Option<Runtime>,
}

impl World {
    /// Each handshake costs the broker `each`.
    fn start(each: Duration, mut config: BrokerConfig, authenticator: Arc<dyn Authenticator>) -> Self {
        let pki = Pki::new();
        let work = Arc::new(Work { each, is_held: AtomicBool::new(false), signed: AtomicUsize::new(0) });
        let (chain, key) = pki.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let key = provider().key_provider.load_private_key(key).unwrap();
        let key = Arc::new(Toil { key, work: Arc::clone(&work) });
        let tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
        config.listen = vec![Listener::tls("127.0.0.1:0".parse().unwrap(), Arc::new(tls)), common::loopback()];
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap();
        let reasons = Arc::new(Reasons::default());
        let broker = {
            let _inside = runtime.enter();
            let observer = Arc::clone(&reasons) as Arc<dyn Observer>;
            Broker::start(config, vec![AccountConfig::new("$G")], authenticator, vec![], observer).unwrap()
        };
        Self { pki, broker, work, reasons, runtime: Some(runtime) }
    }

    fn open(each: Duration, config: BrokerConfig) -> Self {
        Self::start(each, config, Arc::new(Admit { probe: None }))
    }

    fn tls(&self) -> SocketAddr {
        self.broker.local_addr(0).unwrap()
    }

    fn plain(&self) -> SocketAddr {
        self.broker.local_addr(1).unwrap()
    }

    fn client_config(&self) -> Arc<ClientConfig> {
        Arc::new(self.pki.client(None, BOTH))
    }

    fn signed(&self) -> usize {
        self.work.signed.load(Ordering::Relaxed)
    }

    fn refused(&self, reason: &str) -> usize {
        self.reasons.0.lock().unwrap().get(reason).copied().unwrap_or(0)
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Lets everybody in; with `probe`, under an exclusive name.
struct Admit {
    probe: Option<Duration>,
}

#[async_trait]
impl Authenticator for Admit {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        let claim =
            self.probe.map(|probe| ExclusiveClaim { key: request.connect.name.clone(), probe, yields_to: None });
        Ok(Grant { claim, ..Grant::new("$G") })
    }
}

/// Connects over TLS as far as an answered PING.
async fn join(addr: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let (raw, _) = Raw::connect_info(addr).await;
    let name = ServerName::try_from("localhost").unwrap();
    let mut raw = Raw::over(TlsConnector::from(config).connect(name, raw.into_stream()).await?);
    raw.send(format!("{CONNECT}PING\r\n")).await;
    raw.expect("PONG\r\n").await;
    Ok(raw)
}

/// The first bytes of a TLS client.
fn hello(config: Arc<ClientConfig>) -> Vec<u8> {
    let mut session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

/// Two established clients that write to each other.
struct Pair {
    from: Raw<TlsStream<TcpStream>>,
    to: Raw<TlsStream<TcpStream>>,
    sent: usize,
}

impl Pair {
    async fn new(world: &World) -> Self {
        let from = join(world.tls(), world.client_config()).await.unwrap();
        let mut to = join(world.tls(), world.client_config()).await.unwrap();
        to.send("SUB pair 1\r\n").await;
        to.sync().await;
        Self { from, to, sent: 0 }
    }

    /// One message from one to the other.
    async fn trip(&mut self) {
        self.sent += 1;
        let number = format!("{:06}", self.sent);
        self.from.send(format!("PUB pair 6\r\n{number}\r\n")).await;
        self.to.expect(format!("MSG pair 1 6\r\n{number}\r\n")).await;
    }
}

/// The herd needs half a second of the broker's threads more than a handshake may take. Waiting for the broker is not
/// held against anybody, and messages go through between the handshakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_gets_in_at_the_first_try_and_the_established_do_not_notice() {
    const HERD: usize = 150;
    let config = BrokerConfig { tls_timeout: Duration::from_millis(600), ..BrokerConfig::default() };
    let world = World::open(Duration::from_millis(15), config);
    let mut pair = Pair::new(&world).await;
    let before = world.signed();
    let mut herd = tokio::task::JoinSet::new();
    for _ in 0..HERD {
        herd.spawn(join(world.tls(), world.client_config()));
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let (work, done) = (Arc::clone(&world.work), Arc::clone(&is_done));
    let talking = tokio::spawn(async move {
        let mut trips = 0;
        while !done.load(Ordering::Relaxed) {
            pair.trip().await;
            // Only those in the thick of it.
            let shaken = work.signed.load(Ordering::Relaxed) - before;
            trips += usize::from((HERD / 10..HERD * 9 / 10).contains(&shaken));
        }
        trips
    });
    let herd = tokio::time::timeout(DEADLINE, herd.join_all()).await.unwrap();
    is_done.store(true, Ordering::Relaxed);
    let trips = tokio::time::timeout(DEADLINE, talking).await.unwrap().unwrap();
    let failed: Vec<_> = herd.iter().filter_map(|joined| joined.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {HERD} did not get in: {:?}", failed.len(), failed[0]);
    assert_eq!(world.refused("tls_failure"), 0);
    assert!(trips >= HERD / 5, "only {trips} messages went through");
}

/// Whoever has left by the time its turn comes costs no signature: all leave while the broker is at its first ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_computed_for_peers_that_have_left() {
    const LEAVING: usize = 100;
    let world = World::open(Duration::ZERO, BrokerConfig::default());
    let hello = hello(world.client_config());
    let mut peers = Vec::new();
    for _ in 0..LEAVING {
        peers.push(Raw::connect_info(world.tls()).await.0);
    }
    world.work.is_held.store(true, Ordering::Relaxed);
    for mut peer in peers {
        peer.send(&hello).await;
    }
    world.work.is_held.store(false, Ordering::Relaxed);
    world.until("all are gone", |world| world.broker.monitor().varz().connections == 0).await;
    let signed = world.signed();
    assert!(signed <= THREADS, "{signed} signatures for {LEAVING} peers that left at once");
    assert_eq!(world.refused("tls_failure"), LEAVING, "but each is counted");
    join(world.tls(), world.client_config()).await.unwrap();
}

/// How somebody comes who never gets to the end.
#[derive(Debug, Clone, Copy)]
enum Half {
    /// Not a byte.
    Silent,
    /// A byte of a TLS record.
    OneByte,
    /// A whole ClientHello and nothing more.
    Hello,
    /// TLS, but no CONNECT.
    NoConnect,
    /// TLS and half of CONNECT.
    TornConnect,
}

/// What keeps the socket of a peer open.
enum Open {
    Plain { _raw: Raw },
    Tls { _raw: Box<Raw<TlsStream<TcpStream>>> },
}

impl Half {
    const ALL: [Self; 5] = [Self::Silent, Self::OneByte, Self::Hello, Self::NoConnect, Self::TornConnect];

    async fn begin(self, addr: SocketAddr, config: Arc<ClientConfig>) -> Open {
        let mut raw = Raw::connect(addr).await;
        let bytes = match self {
            Self::Silent => Vec::new(),
            Self::OneByte => vec![0x16],
            Self::Hello => hello(config),
            Self::NoConnect | Self::TornConnect => {
                let name = ServerName::try_from("localhost").unwrap();
                let stream = TlsConnector::from(config).connect(name, raw.into_stream()).await.unwrap();
                let mut raw = Raw::over(stream);
                if matches!(self, Self::TornConnect) {
                    raw.send(&CONNECT[..20]).await;
                }
                return Open::Tls { _raw: Box::new(raw) };
            }
        };
        raw.send(bytes).await;
        Open::Plain { _raw: raw }
    }
}

/// At the limit of connections the oldest of those that have not logged in makes room. Nobody who has is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_sockets_keep_nobody_out() {
    const LIMIT: usize = 40;
    let long = Duration::from_secs(600);
    let config =
        BrokerConfig { max_connections: LIMIT, tls_timeout: long, auth_timeout: long, ..BrokerConfig::default() };
    let world = World::open(Duration::ZERO, config);
    let mut pair = Pair::new(&world).await;
    let mut open = Vec::new();
    for half in Half::ALL.into_iter().cycle().take(LIMIT * 2) {
        open.push(half.begin(world.tls(), world.client_config()).await);
    }
    let mut members = Vec::new();
    for _ in 0..LIMIT - 2 {
        members.push(join(world.tls(), world.client_config()).await.unwrap());
        pair.trip().await;
    }
    world.until("as many as may be", |world| world.broker.monitor().varz().connections == LIMIT).await;
    assert_eq!(world.refused("crowded_out"), LIMIT * 2, "each of the half-open had to go");
    assert_eq!(world.refused("max_connections"), 0);
    for member in &mut members {
        member.sync().await;
    }
    // All are members now: the next one is told that there is no room.
    let mut late = Raw::connect(world.tls()).await;
    assert_eq!(late.rest().await, "-ERR 'maximum connections exceeded'\r\n");
    assert_eq!(world.refused("max_connections"), 1);
    pair.trip().await;
}

/// Bytes that keep coming do not move the end of the time to shake hands or to log in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_at_a_time_ends_at_the_deadline() {
    const LORISES: usize = 30;
    let short = Duration::from_millis(300);
    let config = BrokerConfig { tls_timeout: short, auth_timeout: short, ..BrokerConfig::default() };
    let world = World::open(Duration::ZERO, config);
    let mut pair = Pair::new(&world).await;
    let hello = hello(world.client_config());
    let mut lorises = tokio::task::JoinSet::new();
    for number in 0..LORISES * 2 {
        let over_tls = number % 2 == 0;
        let (addr, bytes) =
            if over_tls { (world.tls(), hello.clone()) } else { (world.plain(), CONNECT.as_bytes().to_vec()) };
        lorises.spawn(async move {
            let mut stream = Raw::connect(addr).await.into_stream();
            let mut sent = 0;
            // The last byte never comes.
            for byte in &bytes[..bytes.len() - 1] {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sent += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(sent < bytes.len() - 1, "the broker listened to the end");
        });
    }
    for _ in 0..20 {
        pair.trip().await;
    }
    tokio::time::timeout(DEADLINE, lorises.join_all()).await.unwrap();
    world.until("TLS peers are counted", |world| world.refused("tls_failure") == LORISES).await;
    world.until("plain peers are counted", |world| world.refused("auth_timeout") == LORISES).await;
    world.until("only the pair is left", |world| world.broker.monitor().varz().connections == 2).await;
    pair.trip().await;
}

/// After a network failure every node comes again while the broker still holds its old connection: each is probed, each
/// is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_takes_over_the_names_of_its_dead_connections() {
    const HERD: usize = 400;
    let probe = Some(Duration::from_millis(500));
    let config = BrokerConfig { auth_timeout: DEADLINE, ..BrokerConfig::default() };
    let world = World::start(Duration::ZERO, config, Arc::new(Admit { probe }));
    let connect = |number: usize| CONNECT.replacen('{', &format!("{{\"name\":\"n{number}\","), 1);
    // They will not answer a PING.
    let mut dead = Vec::new();
    for number in 0..HERD {
        let mut raw = Raw::connect(world.plain()).await;
        raw.send(connect(number)).await;
        raw.sync().await;
        dead.push(raw);
    }
    let mut herd = tokio::task::JoinSet::new();
    for number in 0..HERD {
        let (addr, connect) = (world.plain(), connect(number));
        herd.spawn(async move {
            let mut raw = Raw::connect(addr).await;
            raw.send(connect).await;
            raw.sync().await;
            raw
        });
    }
    let herd = tokio::time::timeout(DEADLINE, herd.join_all()).await.unwrap();
    assert_eq!(herd.len(), HERD);
    world.until("the old ones are gone", |world| world.broker.monitor().varz().connections == HERD).await;
    assert_eq!(world.refused("claim_held"), 0);
    drop(dead);
}

/// An open broker has no newcomers: everybody has an account from the first moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_logins_nobody_is_crowded_out() {
    let config = BrokerConfig { max_connections: 2, ..BrokerConfig::default() };
    let world = World::start(Duration::ZERO, config, Arc::new(OpenAuthenticator::default()));
    let (mut first, mut second) = (Raw::connect(world.plain()).await, Raw::connect(world.plain()).await);
    let mut third = Raw::connect(world.plain()).await;
    assert_eq!(third.rest().await, "-ERR 'maximum connections exceeded'\r\n");
    first.send(CONNECT).await;
    first.sync().await;
    second.send(CONNECT).await;
    second.sync().await;
    assert_eq!(world.refused("crowded_out"), 0);
}
