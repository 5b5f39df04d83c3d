//! The engine of one client connection: received bytes in, output in outboxes out. No I/O, no waiting.

mod publish;
mod subscribe;
#[cfg(test)]
mod tests;
mod traced;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nats_proto::parser::{ClientOp, Limits, Parsed, Parser, Publish, Violation};
use nats_proto::{Connect, Info, encode};
use smallvec::SmallVec;

use crate::auth::{Grant, Refusal};
use crate::conn::{About, Conn, flag};
use crate::live::Live;
use crate::permission::publishes_freely;
use crate::reload;
use crate::route::{IndexGuard, RUN, Tick};
use crate::shared::Shared;
use crate::trace;

/// What the shell does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Read on; `needed` bytes, counted from the first one not consumed, must at least be there.
    Read { needed: usize },
    /// Ask the authenticator, then go on with the rest.
    Authenticate(Box<Connect>),
    /// The connection is to end; the reason is with the connection.
    Close,
}

/// How far the engine got.
#[derive(Debug)]
pub(crate) struct Fed {
    pub(crate) consumed: usize,
    pub(crate) next: Next,
}

/// Publishes of one read that wait to be routed together.
type Batch<'a> = SmallVec<[Publish<'a>; RUN]>;

/// The engine's state of one connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) conn: Arc<Conn>,
    pub(crate) listener: usize,
    parser: Parser,
    /// Account and rights, once there are some.
    rights: Option<Rights>,
    /// CONNECT options.
    options: u32,
    understands_info: bool,
    pub(crate) is_connected: bool,
    sent_connect_info: bool,
    /// The client was told that the broker is going.
    knows_end: bool,
    answered_ping: bool,
    /// Which [`Live`] the limits were taken from.
    generation: u64,
}

struct Rights {
    account: u32,
    grant: Arc<Grant>,
    /// No publish list to look at.
    publishes_freely: bool,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, conn: Arc<Conn>, listener: usize) -> Self {
        let live = shared.live();
        let config = &live.config;
        let limits = Limits {
            max_control_line: config.max_control_line,
            max_connect_line: config.max_connect_line,
            max_payload: config.max_payload,
        };
        let generation = live.generation;
        drop(live);
        let options = conn.flags() & flag::OPTIONS;
        Self {
            shared,
            conn,
            listener,
            parser: Parser::new(limits),
            rights: None,
            options,
            understands_info: false,
            is_connected: false,
            sent_connect_info: false,
            knows_end: false,
            answered_ping: false,
            generation,
        }
    }

    /// Whether the connection has an account.
    pub(crate) fn has_rights(&self) -> bool {
        self.rights.is_some()
    }

    /// The grant and account in force.
    pub(crate) fn grant(&self) -> Option<(u32, &Arc<Grant>)> {
        self.rights.as_ref().map(|rights| (rights.account, &rights.grant))
    }

    fn has_option(&self, option: u32) -> bool {
        self.options & option != 0
    }

    /// Works through received bytes.
    pub(crate) fn feed(&mut self, input: &[u8], tick: &mut Tick) -> Fed {
        // Keeps the borrow of index guards apart from `self`.
        let shared = Arc::clone(&self.shared);
        let live = shared.live();
        if live.generation != self.generation {
            self.take_limits(&live);
        }
        let mut index: IndexGuard<'_> = None;
        let mut batch = Batch::new();
        let mut at = 0;
        let next = loop {
            if self.rights.is_none() && !self.may_go_on(&input[at..]) {
                break Next::Close;
            }
            match self.parser.parse(&input[at..]) {
                Parsed::Op { op: ClientOp::Publish(publish), consumed } => {
                    at += consumed;
                    if batch.first().is_some_and(|first| first.subject != publish.subject) {
                        self.publish(&shared, &live, &batch, &mut index, tick);
                        batch.clear();
                    }
                    let alone = publish.tail.is_none()
                        || self.has_option(flag::VERBOSE | flag::PEDANTIC)
                        || (publish.is_hpub && trace::destination(publish.headers()).is_some());
                    if publish.is_hpub && !self.has_option(flag::HEADERS) {
                        // The observer may want to publish.
                        index = None;
                        self.tell_violation("a message with headers, which CONNECT did not announce");
                        self.conn.close("Protocol Violation");
                        break Next::Close;
                    }
                    if alone && !batch.is_empty() {
                        self.publish(&shared, &live, &batch, &mut index, tick);
                        batch.clear();
                    }
                    batch.push(publish);
                    if alone || batch.len() == RUN {
                        self.publish(&shared, &live, &batch, &mut index, tick);
                        batch.clear();
                    }
                }
                Parsed::Op { op, consumed } => {
                    at += consumed;
                    self.publish(&shared, &live, &batch, &mut index, tick);
                    batch.clear();
                    index = None;
                    if let Some(next) = self.operate(op, tick) {
                        break next;
                    }
                }
                Parsed::Incomplete { needed } => break Next::Read { needed },
                Parsed::Violation(violation) => {
                    self.publish(&shared, &live, &batch, &mut index, tick);
                    batch.clear();
                    index = None;
                    self.violate(violation, tick);
                    break Next::Close;
                }
            }
        };
        self.publish(&shared, &live, &batch, &mut index, tick);
        Fed { consumed: at, next }
    }

    /// Before CONNECT: only CONNECT, unless the authenticator grants more. Decided on the first bytes, so that
    /// nothing else is ever buffered.
    fn may_go_on(&mut self, input: &[u8]) -> bool {
        const CONNECT: &[u8] = b"CONNECT";
        let seen = input.len().min(CONNECT.len());
        if input[..seen].eq_ignore_ascii_case(&CONNECT[..seen]) {
            return true;
        }
        let live = self.shared.live();
        let generation = live.generation;
        if let Some(grant) = live.authenticator.before_connect_on(self.listener)
            && let Some(account) = live.account_number(&grant.account)
        {
            live.accounts[account as usize].state.connections.fetch_add(1, Ordering::Relaxed);
            drop(live);
            self.set_rights(account, Arc::new(grant));
            reload::catch_up(&self.shared, &self.conn, generation);
            return true;
        }
        let refusal = Refusal {
            reason: "no_connect",
            detail: "the client sent an operation before CONNECT".to_owned(),
            claimed: None,
        };
        self.refuse(&refusal, "Authorization Violation", "Authentication Failure");
        false
    }

    /// Tells the observer and the client that there is no way in.
    pub(crate) fn refuse(&self, refusal: &Refusal, text: &str, reason: &'static str) {
        tracing::debug!(cid = self.conn.cid, remote = ?self.conn.remote, %refusal, "connection refused");
        self.shared.observer.refused(self.conn.remote, refusal);
        self.conn.fail(text, reason);
    }

    /// Puts a grant in force. The account's connection counter is the caller's.
    pub(crate) fn set_rights(&mut self, account: u32, grant: Arc<Grant>) {
        let mut rare = self.conn.rare.lock();
        rare.account = Some(account);
        rare.grant = Some(Arc::clone(&grant));
        rare.budgets = None;
        drop(rare);
        self.adopt(account, grant);
    }

    /// Acts by a grant that the connection already has.
    fn adopt(&mut self, account: u32, grant: Arc<Grant>) {
        if grant.permissions.responses.is_some() {
            self.conn.set(flag::BUDGETED);
        } else {
            self.conn.clear(flag::BUDGETED);
        }
        self.rights = Some(Rights { account, publishes_freely: publishes_freely(&grant), grant });
        let shared = Arc::clone(&self.shared);
        self.take_limits(&shared.live());
    }

    /// Takes over the limits that are in force now.
    fn take_limits(&mut self, live: &Live) {
        self.generation = live.generation;
        let limits = &mut self.parser.limits;
        limits.max_control_line = live.config.max_control_line;
        limits.max_connect_line = live.config.max_connect_line;
        limits.max_payload = match &self.rights {
            Some(rights) => live.accounts[rights.account as usize].max_payload,
            None => live.config.max_payload,
        };
    }

    /// Takes over rights that were changed from outside.
    pub(crate) fn renew(&mut self) {
        self.conn.clear(flag::REGRANTED);
        let grant = self.conn.rare.lock().grant.clone();
        if let (Some(rights), Some(grant)) = (&self.rights, grant) {
            self.adopt(rights.account, Arc::clone(&grant));
            // Whatever was subscribed while the rights changed.
            reload::sweep(&self.shared, &self.conn, &grant);
        }
    }

    /// Takes the options of an accepted CONNECT over.
    pub(crate) fn accept_connect(&mut self, connect: &Connect) {
        let mut options = 0;
        for (is_set, option) in [
            (connect.echo, flag::ECHO),
            (connect.headers && self.shared.live().config.headers, flag::HEADERS),
            (connect.verbose, flag::VERBOSE),
            (connect.pedantic, flag::PEDANTIC),
            (connect.no_responders, flag::NO_RESPONDERS),
        ] {
            if is_set {
                options |= option;
            }
        }
        self.options = options;
        self.conn.set_options(options);
        self.conn.set(flag::CONNECTED);
        self.understands_info = connect.protocol >= 1;
        self.is_connected = true;
        let mut rare = self.conn.rare.lock();
        let about = rare.about.get_or_insert_default();
        **about = About {
            name: connect.name.as_str().into(),
            refused_user: Box::default(),
            lang: connect.lang.as_str().into(),
            version: connect.version.as_str().into(),
            tls: about.tls,
        };
        drop(rare);
        if connect.verbose {
            self.conn.append(|out| out.extend_from_slice(encode::OK));
            self.conn.flush();
        }
    }

    /// An operation other than a publish.
    fn operate(&mut self, op: ClientOp<'_>, tick: &mut Tick) -> Option<Next> {
        match op {
            ClientOp::Publish(_) | ClientOp::Ignored => {}
            ClientOp::Ping => self.ping(tick),
            ClientOp::Pong => self.pong(tick),
            ClientOp::Subscribe { subject, queue, sid } => self.subscribe(subject, queue, sid, tick),
            ClientOp::Unsubscribe { sid, max } => self.unsubscribe(sid, max, tick),
            ClientOp::Connect(argument) => return Some(self.connect(argument)),
        }
        None
    }

    fn ping(&mut self, tick: &mut Tick) {
        tick.send(&self.conn, |out| out.extend_from_slice(encode::PONG));
        if !self.answered_ping {
            self.answered_ping = true;
            let since = self.conn.started.elapsed().unwrap_or_default();
            self.note_round_trip(since.as_micros() as u64);
        }
        if self.is_connected && self.understands_info && !self.sent_connect_info {
            self.sent_connect_info = true;
            let info = self.connect_info();
            self.knows_end = info.ldm;
            let line = info.to_line();
            tick.send(&self.conn, |out| out.extend_from_slice(&line));
        }
    }

    fn pong(&self, tick: &Tick) {
        if self.conn.pings_out.swap(0, Ordering::Relaxed) > 0 {
            let sent = self.conn.ping_sent.load(Ordering::Relaxed);
            self.note_round_trip(tick.now.saturating_sub(sent) * 1000);
        }
    }

    fn note_round_trip(&self, micros: u64) {
        self.conn.rtt_us.store(micros.max(1), Ordering::Relaxed);
    }

    fn connect(&mut self, argument: &[u8]) -> Next {
        let mut connect = Connect::default();
        if self.is_connected {
            // What a further CONNECT does not name keeps its value; credentials were not kept.
            connect.echo = self.has_option(flag::ECHO);
            connect.headers = self.has_option(flag::HEADERS);
            connect.verbose = self.has_option(flag::VERBOSE);
            connect.pedantic = self.has_option(flag::PEDANTIC);
            connect.no_responders = self.has_option(flag::NO_RESPONDERS);
            connect.protocol = i64::from(self.understands_info);
            if let Some(about) = &self.conn.rare.lock().about {
                connect.name = about.name.to_string();
                connect.lang = about.lang.to_string();
                connect.version = about.version.to_string();
            }
        }
        if connect.merge(argument).is_err() {
            // Not the error's text: it repeats values, and one of them may be a password.
            self.tell_violation("CONNECT is not a JSON object of the right types");
            self.conn.close("Protocol Violation");
            return Next::Close;
        }
        Next::Authenticate(Box::new(connect))
    }

    /// Tells the observer what the peer did that no client does. Ending the connection is the caller's.
    pub(crate) fn tell_violation(&self, what: &str) {
        let of_grant = self.rights.as_ref().and_then(|rights| rights.grant.tag.as_deref().map(str::to_owned));
        let claimed = of_grant.or_else(|| {
            let rare = self.conn.rare.lock();
            rare.about.as_ref().map(|about| about.name.to_string()).filter(|name| !name.is_empty())
        });
        let detail = format!("the peer broke the protocol: {what}");
        let refusal = Refusal { reason: "protocol_violation", detail, claimed };
        tracing::debug!(cid = self.conn.cid, remote = ?self.conn.remote, %refusal, "connection ended");
        self.shared.observer.refused(self.conn.remote, &refusal);
    }

    fn violate(&self, violation: Violation, tick: &mut Tick) {
        self.tell_violation(match violation {
            Violation::UnknownOperation => "unknown operation",
            Violation::ControlLine => "a line longer than the limit",
            Violation::MaxPayload => "a message larger than max_payload",
            Violation::Arguments => "an operation with wrong arguments",
        });
        let (text, reason) = match violation {
            Violation::UnknownOperation => ("Unknown Protocol Operation", "Parse Error"),
            Violation::ControlLine => ("maximum control line exceeded", "Maximum Control Line Exceeded"),
            Violation::MaxPayload => ("Maximum Payload Violation", "Maximum Message Payload Exceeded"),
            Violation::Arguments => {
                self.conn.close("Protocol Violation");
                return;
            }
        };
        tick.send(&self.conn, |out| encode::error(out, text));
        self.conn.close(reason);
    }

    /// The INFO of this connection, as on accept.
    pub(crate) fn info(&self, nonce: Option<String>) -> Info {
        let live = self.shared.live();
        let config = &live.config;
        let with_tls = config.listen.get(self.listener).filter(|listener| listener.tls.is_some());
        let may_stay_clear = with_tls.is_some_and(|listener| listener.allow_non_tls);
        let (host, port) = self.shared.advertised(self.listener);
        let authenticator = &live.authenticator;
        Info {
            server_id: self.shared.server_id.clone(),
            server_name: self.shared.server_name.clone(),
            version: config.version.clone(),
            proto: 1,
            go: "rust".to_owned(),
            host,
            port,
            headers: config.headers,
            auth_required: authenticator.auth_required_on(self.listener)
                && authenticator.before_connect_on(self.listener).is_none(),
            tls_required: with_tls.is_some() && !may_stay_clear,
            tls_verify: with_tls.is_some_and(|listener| listener.tls_verify),
            tls_available: may_stay_clear,
            max_payload: config.max_payload as i64,
            client_id: self.conn.cid,
            client_ip: self.conn.remote.map(|remote: SocketAddr| remote.ip().to_string()).unwrap_or_default(),
            nonce,
            cluster: config.cluster_name.clone().unwrap_or_default(),
            api_lvl: 1,
            ldm: self.shared.is_lame_duck.load(Ordering::Relaxed),
            ..Info::default()
        }
    }

    /// Tells a client that understands it that the broker is going.
    pub(crate) fn tell_lame_duck(&mut self) {
        // Whoever logged in meanwhile has it from its first INFO.
        if self.is_connected && self.understands_info && !self.knows_end {
            self.knows_end = self.shared.is_lame_duck.load(Ordering::Relaxed);
            let line = Info { ldm: true, ..self.info(None) }.to_line();
            self.conn.append(|out| out.extend_from_slice(&line));
            self.conn.flush();
        }
    }

    /// The INFO that follows the first PONG.
    fn connect_info(&self) -> Info {
        let mut info = self.info(None);
        let live = self.shared.live();
        info.auth_required = live.authenticator.auth_required_on(self.listener);
        info.connect_info = true;
        if let Some(rights) = &self.rights {
            let account = &live.accounts[rights.account as usize];
            info.remote_account = account.name.to_string();
            info.acc_is_sys = account.is_system;
            info.max_payload = account.max_payload as i64;
        }
        info
    }
}

/// A text inside double quotes of an error line.
pub(crate) fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
