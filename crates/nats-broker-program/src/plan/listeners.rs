//! Where to listen, and with which TLS.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use nats_broker::{Listener, TlsStart, WebSocketSettings};
use nats_config::settings::{Listen, Port, WebSocket};
use nats_config::{Located, Position, Settings};

use super::PlanError;
use crate::tls::{self, ListenerTls};

/// The usual port of clients.
pub(super) const CLIENT_PORT: u16 = 4222;
/// The usual port of monitoring.
const HTTP_PORT: u16 = 8222;
/// Where nats-server listens unless told otherwise: every IPv4 address.
const EVERYWHERE: &str = "0.0.0.0";

/// Everything that listens.
pub(super) struct Listeners {
    /// Clients first, then WebSocket when there is one.
    pub(super) listen: Vec<Listener>,
    /// TLS of the listeners that have it, by position.
    pub(super) tls: Vec<Option<ListenerTls>>,
    pub(super) http: Option<SocketAddr>,
    pub(super) https: Option<(SocketAddr, Arc<rustls::ServerConfig>)>,
}

pub(super) fn make(settings: &Settings, warnings: &mut Vec<String>) -> Result<Listeners, PlanError> {
    let clients = client_listener(settings, warnings)?;
    let mut all = Listeners { listen: vec![clients.0], tls: vec![clients.1], http: None, https: None };
    if let Some(websocket) = &settings.websocket
        && let Some((listener, tls)) = websocket_listener(settings, websocket, warnings)?
    {
        all.listen.push(listener);
        all.tls.push(tls);
    }
    all.http = monitor(settings, settings.http.as_ref())?;
    if let Some(addr) = monitor(settings, settings.https.as_ref())? {
        let https = settings.https.as_ref();
        let tls = all.tls.first().and_then(Option::as_ref).ok_or_else(|| {
            PlanError::new(
                https.map(|https| https.at.clone()),
                "monitoring over HTTPS needs a tls block, whose certificate it shows",
            )
        })?;
        all.https = Some((addr, Arc::clone(&tls.config)));
    }
    Ok(all)
}

fn client_listener(
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<(Listener, Option<ListenerTls>), PlanError> {
    let port = settings.port.as_ref().map_or(CLIENT_PORT, |port| number(port.value, CLIENT_PORT));
    let at = settings.host.as_ref().map(|host| &host.at).or_else(|| settings.port.as_ref().map(|port| &port.at));
    let mut listener = Listener::plain(address(host(settings, None), port, at)?);
    let tls = settings.tls.as_ref().map(|tls| tls::listener(tls, &path, warnings)).transpose()?;
    if let Some(tls) = &tls {
        put(&mut listener, tls);
        listener.tls_start = tls.start;
        listener.allow_non_tls = settings.allow_non_tls.as_ref().is_some_and(|allow| allow.value);
        if listener.allow_non_tls && tls.verify {
            warnings.push(
                "allow_non_tls: clients in clear text show no certificate; they need other credentials".to_owned(),
            );
        }
    } else if let Some(allow) = settings.allow_non_tls.as_ref().filter(|allow| allow.value) {
        warnings.push(format!("{}: allow_non_tls without tls has no effect", allow.at));
    }
    Ok((listener, tls))
}

fn put(listener: &mut Listener, tls: &ListenerTls) {
    listener.tls = Some(Arc::clone(&tls.config));
    listener.tls_verify = tls.verify;
}

fn websocket_listener(
    settings: &Settings,
    websocket: &Located<WebSocket>,
    warnings: &mut Vec<String>,
) -> Result<Option<(Listener, Option<ListenerTls>)>, PlanError> {
    let port = match websocket.port.as_ref().map(|port| port.value) {
        None | Some(Port::Default) => return Ok(None),
        Some(port) => number(port, 0),
    };
    let at = websocket.host.as_ref().map_or(&websocket.at, |host| &host.at);
    let host = websocket.host.as_ref().map_or(EVERYWHERE, |host| host.value.as_str());
    let mut listener = Listener::plain(address(host, port, Some(at))?);
    let is_plain = websocket.no_tls.as_ref().is_some_and(|no_tls| no_tls.value);
    let tls = match &websocket.tls {
        Some(tls) if !is_plain => Some(tls::listener(tls, &path, warnings)?),
        _ => None,
    };
    match &tls {
        Some(tls) => {
            put(&mut listener, tls);
            listener.tls_start = TlsStart::First;
        }
        None if is_plain => {
            warnings.push("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!".to_owned());
        }
        None => {
            return Err(PlanError::at(
                &websocket.at,
                "websocket needs TLS: a tls block in it, or no_tls: true for clear text",
            ));
        }
    }
    let is_operated = !settings.operators.is_empty() || !settings.trusted_keys.is_empty();
    if let Some(cookie) = websocket.jwt_cookie.as_ref().filter(|_| !is_operated) {
        return Err(PlanError::at(&cookie.at, "jwt_cookie needs operator mode: nobody else reads JWTs"));
    }
    listener.advertise = websocket.advertise.as_ref().map(|advertise| advertise.value.clone());
    let cookie = |name: &Option<Located<String>>| name.as_ref().map(|name| name.value.clone());
    let websocket = WebSocketSettings {
        compression: websocket.compression == Some(true),
        same_origin: websocket.same_origin == Some(true),
        allowed_origins: websocket.allowed_origins.iter().map(|origin| origin.value.clone()).collect(),
        handshake_timeout: super::time(websocket.handshake_timeout.as_ref(), std::time::Duration::ZERO),
        user_cookie: cookie(&websocket.user_cookie),
        pass_cookie: cookie(&websocket.pass_cookie),
        token_cookie: cookie(&websocket.token_cookie),
        jwt_cookie: cookie(&websocket.jwt_cookie),
    };
    Ok(Some((listener.websocket(websocket), tls)))
}

/// Where monitoring listens: port 0 switches it off.
fn monitor(settings: &Settings, listen: Option<&Located<Listen>>) -> Result<Option<SocketAddr>, PlanError> {
    let Some(listen) = listen.filter(|listen| listen.port != Port::Default) else { return Ok(None) };
    let port = number(listen.port, HTTP_PORT);
    address(host(settings, listen.host.as_deref()), port, Some(&listen.at)).map(Some)
}

fn host<'a>(settings: &'a Settings, own: Option<&'a str>) -> &'a str {
    let usual = settings.host.as_ref().map(|host| host.value.as_str());
    own.or(usual).filter(|host| !host.is_empty()).unwrap_or(EVERYWHERE)
}

/// A port for the system, for which 0 means any free one.
pub(super) fn number(port: Port, usual: u16) -> u16 {
    match port {
        Port::Default => usual,
        Port::Free => 0,
        Port::Number(number) => number,
    }
}

fn address(host: &str, port: u16, at: Option<&Position>) -> Result<SocketAddr, PlanError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let failed = |reason: String| PlanError::new(at.cloned(), format!("cannot listen on {host}: {reason}"));
    // What the resolver would not find anyway, with an answer that helps.
    if host.contains(':') {
        return Err(failed("that is no host name; give the port with -p or port".to_owned()));
    }
    let found = (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let mut found: Vec<SocketAddr> = found.collect();
    // As the reference does: IPv4 first.
    found.sort_by_key(|addr| !addr.is_ipv4());
    found.first().copied().ok_or_else(|| failed("the name has no address".to_owned()))
}

fn path(setting: &Located<String>) -> PathBuf {
    PathBuf::from(&setting.value)
}
