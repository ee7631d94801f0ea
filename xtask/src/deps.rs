//! The rules of the house that no compiler checks.
//!
//! A crate border is there to keep something out, so each is written down here with its reason. The
//! facts come from `cargo metadata` and from the sources themselves.
//!
//! - [`rooms`]: which crate may use which.
//! - [`registry`]: what comes from outside: licences, banned crates, duplicates.
//! - [`sources`]: unsafe code and long files.

mod code;
mod licence;
mod metadata;
mod registry;
mod rooms;
mod sources;

use std::fmt;

use crate::failure::Failure;
use crate::program;
use metadata::Metadata;

/// A rule that is broken.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    what: String,
    /// What the rule is good for.
    why: &'static str,
}

/// Checks all rules and prints every violation.
///
/// # Errors
///
/// If there is one.
pub(crate) fn check() -> Result<(), Failure> {
    let metadata = Metadata::of_workspace()?;
    let violations: Vec<_> = rooms::check(&metadata)
        .into_iter()
        .chain(registry::check(&metadata))
        .chain(sources::check(&metadata, program::root())?)
        .collect();
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} broken rules"))),
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    because {}", self.what, self.why)
    }
}
