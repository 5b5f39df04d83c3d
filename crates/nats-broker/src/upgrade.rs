//! From an HTTP request to WebSocket: the request as bytes in, the answer as bytes out (spec 07 §9, RFC 6455 §4).

use std::fmt::Write as _;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nats_proto::Connect;
use nats_proto::websocket::Encoder;

use crate::config::WebSocketSettings;

/// Longest request. Cookies may hold tokens, so it is roomy.
pub(crate) const LONGEST_REQUEST: usize = 16 << 10;
/// Most header lines of a request.
const MOST_HEADERS: usize = 64;
/// Browsers get frames of at most so many bytes.
const BROWSER_FRAME: usize = 4096;
/// What RFC 6455 puts behind the client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const DEFLATE: &str = "permessage-deflate";

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// The rest of the request is still to come.
    Incomplete,
    /// The client gets an answer and nothing more.
    Refused {
        answer: Vec<u8>,
        /// For the log.
        detail: &'static str,
    },
    /// Frames follow.
    Accepted(Box<Accepted>),
}

/// A request that was accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) answer: Vec<u8>,
    /// Length of the request; what is behind it are frames.
    pub(crate) consumed: usize,
    pub(crate) encoder: Encoder,
    /// Credentials from cookies, when there are some.
    pub(crate) cookies: Option<Box<CookieCredentials>>,
    /// The client behind a proxy, as the proxy says.
    pub(crate) forwarded: Option<IpAddr>,
}

/// Credentials that came in cookies.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct CookieCredentials {
    user: Option<String>,
    pass: Option<String>,
    token: Option<String>,
    jwt: Option<String>,
}

impl std::fmt::Debug for CookieCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.debug_struct("CookieCredentials").finish_non_exhaustive()
    }
}

impl CookieCredentials {
    /// Puts them where CONNECT names none.
    pub(crate) fn fill(&self, connect: &mut Connect) {
        for (from, to) in [
            (&self.user, &mut connect.user),
            (&self.pass, &mut connect.pass),
            (&self.token, &mut connect.auth_token),
            (&self.jwt, &mut connect.jwt),
        ] {
            if let Some(from) = from
                && to.is_empty()
            {
                to.clone_from(from);
            }
        }
    }
}

/// Answers what came so far. `has_tls`: the request came through TLS.
pub(crate) fn answer(received: &[u8], settings: &WebSocketSettings, has_tls: bool) -> Upgrade {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let consumed = match request.parse(received) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if received.len() < LONGEST_REQUEST => return Upgrade::Incomplete,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refuse_plainly("431 Request Header Fields Too Large", "the HTTP request is too long");
        }
        Err(_) => return refuse_plainly("400 Bad Request", "that is no HTTP request"),
    };
    let request = Request { request };
    if let Some(refusal) = request.judge(settings, has_tls) {
        return refusal;
    }
    let may_deflate = settings.compression && request.offers_deflate();
    let is_browser = request.header("user-agent").is_some_and(|agent| agent.starts_with("Mozilla/"));
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(request.header("sec-websocket-key").unwrap_or_default())
    );
    if may_deflate {
        let _ = write!(
            answer,
            "Sec-WebSocket-Extensions: {DEFLATE}; server_no_context_takeover; client_no_context_takeover\r\n"
        );
    }
    answer.push_str("\r\n");
    Upgrade::Accepted(Box::new(Accepted {
        answer: answer.into_bytes(),
        consumed,
        encoder: Encoder { may_deflate, max_frame: is_browser.then_some(BROWSER_FRAME) },
        cookies: request.cookies(settings),
        forwarded: request.forwarded(),
    }))
}

struct Request<'a> {
    request: httparse::Request<'a, 'a>,
}

impl Request<'_> {
    /// The values of a header, in order; none that is not text.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let headers = self.request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        headers.filter_map(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// Whether a header that is a list has an element.
    fn lists(&self, name: &str, element: &str) -> bool {
        self.values(name).any(|value| value.split(',').any(|found| found.trim().eq_ignore_ascii_case(element)))
    }

    /// The refusal of a request that does not ask for WebSocket, or not from where it may.
    fn judge(&self, settings: &WebSocketSettings, has_tls: bool) -> Option<Upgrade> {
        let bad = |detail| Some(refuse("400 Bad Request", detail));
        if self.request.version == Some(1) && self.header("host").is_none() {
            let refusal = "400 Bad Request: missing required Host header";
            return Some(refuse_plainly(refusal, "the request names no host"));
        }
        if self.request.method != Some("GET") {
            return Some(refuse("405 Method Not Allowed", "the request is no GET"));
        }
        if self.request.path == Some("/mqtt") {
            return Some(refuse("404 Not Found", "there is no MQTT here"));
        }
        if !self.lists("upgrade", "websocket") {
            return bad("the request asks for no upgrade to websocket");
        }
        if !self.lists("connection", "upgrade") {
            return bad("the request has no Connection: Upgrade");
        }
        let key = self.header("sec-websocket-key").and_then(|key| STANDARD.decode(key).ok());
        if key.is_none_or(|key| key.len() != 16) {
            return bad("Sec-WebSocket-Key is not 16 bytes");
        }
        if self.header("sec-websocket-version") != Some("13") {
            return bad("Sec-WebSocket-Version is not 13");
        }
        match self.header("origin") {
            Some(origin) if !self.is_allowed(origin, settings, has_tls) => {
                Some(refuse("403 Forbidden", "the request comes from an origin that is not allowed"))
            }
            _ => None,
        }
    }

    fn is_allowed(&self, origin: &str, settings: &WebSocketSettings, has_tls: bool) -> bool {
        if !settings.same_origin && settings.allowed_origins.is_empty() {
            return true;
        }
        let Some(origin) = Origin::parse(origin) else { return false };
        if settings.same_origin {
            let scheme = if has_tls { "https" } else { "http" };
            let own = Origin::parse(&format!("{scheme}://{}", self.header("host").unwrap_or_default()));
            if own.is_none_or(|own| own != origin) {
                return false;
            }
        }
        let mut allowed = settings.allowed_origins.iter().filter_map(|allowed| Origin::parse(allowed));
        settings.allowed_origins.is_empty() || allowed.any(|allowed| allowed == origin)
    }

    /// Whether the client can compress, with whatever parameters.
    fn offers_deflate(&self) -> bool {
        let mut offers = self.values("sec-websocket-extensions").flat_map(|value| value.split(','));
        offers.any(|offer| offer.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(DEFLATE)))
    }

    fn cookies(&self, settings: &WebSocketSettings) -> Option<Box<CookieCredentials>> {
        let find = |wanted: &Option<String>| {
            let wanted = wanted.as_deref()?;
            let mut pairs =
                self.values("cookie").flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().trim_matches('"').to_owned())
        };
        let found = CookieCredentials {
            user: find(&settings.user_cookie),
            pass: find(&settings.pass_cookie),
            token: find(&settings.token_cookie),
            jwt: find(&settings.jwt_cookie),
        };
        (found != CookieCredentials::default()).then(|| Box::new(found))
    }

    /// One address and no list: a list may have been begun by the client itself.
    fn forwarded(&self) -> Option<IpAddr> {
        let mut values = self.values("x-forwarded-for");
        let only = values.next().filter(|_| values.next().is_none())?;
        only.parse().ok()
    }
}

/// Where a page comes from: scheme, host and port, the latter by the scheme when it is not named.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split(['/', '?', '#']).next()?;
        // The colons of an IPv6 address are inside brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        if host.is_empty() {
            return None;
        }
        Some(Self { host: host.to_ascii_lowercase(), port: port.or(default)?, scheme })
    }
}

/// The proof that the answer was made for this request.
fn accept_key(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), KEY_SUFFIX].concat()))
}

/// A refusal of what is HTTP, but not what is wanted.
fn refuse(status: &str, detail: &'static str) -> Upgrade {
    let reason = status.split_once(' ').map_or(status, |(_, reason)| reason);
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nSec-Websocket-Version: 13\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    );
    Upgrade::Refused { answer: answer.into_bytes(), detail }
}

/// A refusal of what is not even proper HTTP.
fn refuse_plainly(status: &str, detail: &'static str) -> Upgrade {
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{status}");
    Upgrade::Refused { answer: answer.into_bytes(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h.example:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn accepted(more: &str, settings: &WebSocketSettings) -> Option<Accepted> {
        match answer(format!("{REQUEST}{more}\r\n").as_bytes(), settings, false) {
            Upgrade::Accepted(accepted) => Some(*accepted),
            Upgrade::Refused { .. } => None,
            Upgrade::Incomplete => panic!("the request is whole"),
        }
    }

    #[test]
    fn the_sample_of_the_rfc_gets_its_answer_and_frames_behind_it_stay() {
        let settings = WebSocketSettings::default();
        let whole = format!("{REQUEST}\r\n\u{1}frames");
        for end in 0..REQUEST.len() + 2 {
            assert_eq!(answer(&whole.as_bytes()[..end], &settings, false), Upgrade::Incomplete, "{end}");
        }
        let Upgrade::Accepted(accepted) = answer(whole.as_bytes(), &settings, false) else { panic!("refused") };
        let text = String::from_utf8(accepted.answer).unwrap();
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "{text}");
        assert_eq!(&whole.as_bytes()[accepted.consumed..], b"\x01frames");
        assert_eq!((accepted.cookies, accepted.forwarded), (None, None));
    }

    #[test]
    fn long_and_broken_requests_are_refused() {
        let settings = WebSocketSettings::default();
        let long = format!("{REQUEST}Cookie: {}", "c".repeat(LONGEST_REQUEST));
        let many = format!("{REQUEST}{}\r\n", "A: b\r\n".repeat(MOST_HEADERS));
        for (request, status) in
            [(long.as_str(), "431"), (&many, "431"), ("\u{16}\u{3}\u{1}", "400"), ("CONNECT {}\r\n", "400")]
        {
            let Upgrade::Refused { answer, .. } = answer(request.as_bytes(), &settings, false) else {
                panic!("{status}")
            };
            assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
        }
    }

    #[test]
    fn cookies_fill_what_connect_leaves_open() {
        let settings = WebSocketSettings {
            user_cookie: Some("u".into()),
            pass_cookie: Some("p".into()),
            token_cookie: Some("t".into()),
            jwt_cookie: Some("j".into()),
            ..WebSocketSettings::default()
        };
        let cookies =
            accepted("Cookie: a=b; u=me; p=\"a=b\"\r\nCookie: t=tok\r\n", &settings).unwrap().cookies.unwrap();
        let mut connect = Connect { user: "other".into(), ..Connect::default() };
        cookies.fill(&mut connect);
        let filled = [&connect.user, &connect.pass, &connect.auth_token, &connect.jwt].map(String::as_str);
        assert_eq!(filled, ["other", "a=b", "tok", ""]);
        assert!(!format!("{cookies:?}").contains("tok"));
        assert_eq!(accepted("Cookie: x=y\r\n", &settings).unwrap().cookies, None);
    }

    #[test]
    fn only_a_single_forwarded_address_counts() {
        let settings = WebSocketSettings::default();
        for (more, expected) in [
            ("X-Forwarded-For: 192.0.2.7\r\n", Some("192.0.2.7")),
            ("X-Forwarded-For: 2001:db8::1\r\n", Some("2001:db8::1")),
            ("X-Forwarded-For: 192.0.2.7, 192.0.2.8\r\n", None),
            ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 192.0.2.8\r\n", None),
            ("X-Forwarded-For: elsewhere\r\n", None),
        ] {
            let forwarded = accepted(more, &settings).unwrap().forwarded;
            assert_eq!(forwarded, expected.map(|ip| ip.parse().unwrap()), "{more}");
        }
    }

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        let same = WebSocketSettings { same_origin: true, ..WebSocketSettings::default() };
        let list =
            WebSocketSettings { allowed_origins: vec!["https://[::1]:8443".into()], ..WebSocketSettings::default() };
        for (origin, settings, is_let_in) in [
            ("http://H.example:8080", &same, true),
            ("http://h.example", &same, false),
            ("https://h.example:8080", &same, false),
            ("null", &same, false),
            ("http://", &same, false),
            ("https://[::1]:8443", &list, true),
            ("https://[::1]", &list, false),
        ] {
            assert_eq!(accepted(&format!("Origin: {origin}\r\n"), settings).is_some(), is_let_in, "{origin}");
        }
    }

    #[test]
    fn compression_is_agreed_when_it_is_wanted_and_offered() {
        let settings = WebSocketSettings { compression: true, ..WebSocketSettings::default() };
        for (offer, is_agreed) in [
            ("permessage-deflate", true),
            ("x-other, Permessage-Deflate; client_max_window_bits", true),
            ("x-webkit-deflate-frame", false),
        ] {
            let accepted = accepted(&format!("Sec-WebSocket-Extensions: {offer}\r\n"), &settings).unwrap();
            assert_eq!(accepted.encoder.may_deflate, is_agreed, "{offer}");
            let answer = String::from_utf8(accepted.answer).unwrap();
            assert_eq!(answer.contains("Sec-WebSocket-Extensions: permessage-deflate; server_no"), is_agreed);
        }
    }
}
