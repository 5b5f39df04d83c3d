//! Loopback listeners on free ports.

use std::net::{Ipv4Addr, TcpListener};

/// A listener on a free port of 127.0.0.1.
pub fn free_listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port can be had")
}

/// A port that was free a moment ago, for programs that cannot be handed a listener. Another process may take it in
/// between: prefer [`free_listener`], or port 0 and asking the program where it listens.
pub fn free_port() -> u16 {
    free_listener().local_addr().expect("a bound listener has an address").port()
}
