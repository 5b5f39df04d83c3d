//! Choria protocol v1 on the wire: transport, secure, request and reply layers, RPC bodies, filters, subjects, lifecycle events.
