//! Test helpers: certificate authorities, tokens, in-process brokers, deadline waits.
