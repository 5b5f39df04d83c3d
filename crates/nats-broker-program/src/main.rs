//! The `nats-broker` program: an embedded broker on its own, started like nats-server.

fn main() -> std::process::ExitCode {
    nats_broker_program::run(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
}
