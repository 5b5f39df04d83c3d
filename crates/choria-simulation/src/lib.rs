//! The provisioning flow under deterministic simulation (DESIGN §8): one seed is one history, and every history must
//! end with each node provisioned exactly once or still waiting, its files wholly old or wholly new.
//!
//! Must not be in it: anything a program needs at run time. It uses the programs, nothing uses it.
#![cfg_attr(test, allow(clippy::unwrap_used))]
