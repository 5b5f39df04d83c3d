//! `configure`: everything is checked before anything is written, and all of it is written or nothing (spec 03 §7.4).
//!
//! | Module | Holds |
//! |---|---|
//! | [`request`] | the inputs |
//! | [`mod@plan`] | every check, and from a request to the files it stands for |
//! | `policies` | policy files: names, and what stays of the old ones |
//! | `tls` | certificate, CA and key as one set |
//! | [`journal`] | replacing several files at once |

pub mod journal;
pub mod plan;
mod policies;
pub mod request;
mod tls;

pub use crate::files::{Disk, Files};
pub use journal::{Content, JOURNAL, JournalError, Recovered, Replacement, make_names_last, recover};
pub use plan::{ConfigureError, Context, Plan, ProviderCheck, plan};
pub use request::ConfigureRequest;

/// Checks `request` and puts it into force. Nothing has changed when this fails.
///
/// # Errors
/// The text to answer.
pub fn configure(files: &dyn Files, request: &ConfigureRequest, context: &Context<'_>) -> Result<Plan, ConfigureError> {
    let plan = plan(files, request, context)?;
    journal::replace(files, plan.directory(), &plan.replacements)?;
    Ok(plan)
}
