//! `choria req`
