//! The block `websocket`.

use super::{Entry, Key, Reader, authorization, tls};
use crate::Located;
use crate::settings::WebSocket;

const KEYS: &[Key<WebSocket>] = &[
    Key { names: &["listen"], read: listen },
    Key { names: &["host", "net"], read: |w, e, r| w.host = r.text(e) },
    Key { names: &["port"], read: |w, e, r| w.port = r.port(e) },
    Key { names: &["advertise"], read: |w, e, r| w.advertise = r.text(e) },
    Key { names: &["no_tls"], read: |w, e, r| w.no_tls = r.located_bool(e) },
    Key { names: &["tls"], read: |w, e, r| w.tls = tls::read(e, r) },
    Key { names: &["compression"], read: |w, e, r| w.compression = r.bool(e) },
    Key {
        names: &["handshake_timeout"],
        // Unlike other durations a bare number of seconds is usual here.
        read: |w, e, r| w.handshake_timeout = r.seconds(e).and_then(|span| r.not_negative(e, span)),
    },
    Key { names: &["same_origin"], read: |w, e, r| w.same_origin = r.bool(e) },
    Key {
        names: &["allowed_origins", "allowed_origin", "allow_origins", "allow_origin", "origins", "origin"],
        read: |w, e, r| w.allowed_origins = r.texts(e).unwrap_or_default(),
    },
    Key { names: &["jwt_cookie"], read: |w, e, r| w.jwt_cookie = r.text(e) },
    Key { names: &["user_cookie"], read: |w, e, r| w.user_cookie = r.text(e) },
    Key { names: &["pass_cookie"], read: |w, e, r| w.pass_cookie = r.text(e) },
    Key { names: &["token_cookie"], read: |w, e, r| w.token_cookie = r.text(e) },
    Key {
        names: &["authorization", "authentication"],
        read: |w, e, r| w.authorization = authorization::read_websocket(e, r),
    },
    Key { names: &["no_auth_user"], read: |w, e, r| w.no_auth_user = r.text(e) },
    Key { names: &["headers"], read: super::top::no_effect },
    Key { names: &["ping_interval"], read: super::top::no_effect },
];

pub(super) fn read(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<WebSocket>> {
    let websocket = reader.map_into("websocket", entry, KEYS)?;
    Some(Located::new(websocket, entry.at.clone()))
}

fn listen(websocket: &mut WebSocket, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    let Some(Located { value: listen, at }) = reader.listen(entry) else { return };
    if let Some(host) = listen.host {
        websocket.host = Some(Located::new(host, at.clone()));
    }
    websocket.port = Some(Located::new(listen.port, at));
}
