//! The `nats-broker` program: an embedded broker on its own, started like nats-server.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
