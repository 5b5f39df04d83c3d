//! The Choria client: discovery, RPC requests, reply sets.
