//! One binary: broker, server, provisioner, client and tools.
fn main() {}
