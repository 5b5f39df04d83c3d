//! Whether the clock can be right: nothing that exists was made in the future.

use super::Context;
use super::finding::Findings;
use crate::text::utc;

/// Clocks of several machines differ by as much as this without harm, in seconds.
const TOLERANCE: i64 = 60;

/// Compares the clock with the beginnings of all certificates and tokens that were seen.
pub(super) fn check(findings: &mut Findings, context: &Context<'_>) {
    let now = utc(context.now);
    let Some((what, latest)) = findings.past.iter().max_by_key(|(_, time)| *time).cloned() else {
        findings.skipped(&["clock"], "no certificate and no token was seen that the clock could be compared with");
        return;
    };
    if latest > context.now + TOLERANCE {
        findings.failed(
            "clock",
            format!("this machine's clock, {now}"),
            format!("{what} begins at {}, which is in the future", utc(latest)),
            "set the clock (NTP, chrony); if it is right, the machine that made the certificate or token has a wrong one",
        );
    } else {
        findings.ok("clock", format!("this machine's clock, {now}"), "no certificate or token is from the future");
    }
}
