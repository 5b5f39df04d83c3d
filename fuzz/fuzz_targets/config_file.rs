//! Any bytes as a configuration file: it loads, or it is refused; it never panics.
#![no_main]

use choria_config::{Config, Environment, Mode, duration, hosts::HostEntry, keys};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let environment = Environment::fixed("n1.example.net").with_variable("HOME", "/home/lab");
    if let Ok(config) = Config::from_text(text, Mode::Server, &environment) {
        // Whatever loads holds what the types promise.
        assert!(!config.get(&keys::COLLECTIVES).is_empty());
        assert!(!config.get(&keys::IDENTITY).contains(['*', '>', ' ']));
        assert!(!config.get(&keys::TTL).is_zero());
    }
    if let Ok(span) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::to_text(span)), Ok(span));
    }
    if let Ok(host) = HostEntry::parse(text) {
        assert_eq!(HostEntry::parse(&host.to_string()), Ok(host));
    }
});
