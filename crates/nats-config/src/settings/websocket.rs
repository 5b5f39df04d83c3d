//! The block `websocket`.

use std::time::Duration;

use super::{Authorization, Port, Tls};
use crate::Located;

/// The listener for WebSocket clients (spec 07 §9).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebSocket {
    /// `host`, `net` or the host of `listen`.
    pub host: Option<Located<String>>,
    /// `port` or the port of `listen`. Without one there is no listener.
    pub port: Option<Located<Port>>,
    /// `advertise`: `host:port` that INFO names.
    pub advertise: Option<Located<String>>,
    /// `no_tls`: clear text is wanted.
    pub no_tls: Option<Located<bool>>,
    /// `tls`
    pub tls: Option<Located<Tls>>,
    /// `compression`
    pub compression: Option<bool>,
    /// `handshake_timeout`: time for the HTTP request.
    pub handshake_timeout: Option<Located<Duration>>,
    /// `same_origin`
    pub same_origin: Option<bool>,
    /// `allowed_origins`; empty = any.
    pub allowed_origins: Vec<Located<String>>,
    /// `jwt_cookie`
    pub jwt_cookie: Option<Located<String>>,
    /// `user_cookie`
    pub user_cookie: Option<Located<String>>,
    /// `pass_cookie`
    pub pass_cookie: Option<Located<String>>,
    /// `token_cookie`
    pub token_cookie: Option<Located<String>>,
    /// `authorization`: one user or one token for this listener, instead of the broker's own.
    pub authorization: Option<Located<Authorization>>,
    /// `no_auth_user` of this listener.
    pub no_auth_user: Option<Located<String>>,
}
