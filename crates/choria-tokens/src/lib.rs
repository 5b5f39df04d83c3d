//! Choria tokens: JWT claims, purposes, issuers, strict validation, key files.
