//! How a failure is told: the chain of errors once, then hints, then the exit code.
//!
//! Libraries say what failed (operation, object, value, cause); what the user can do about it comes
//! from `hint`, or from the command that failed.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::hint::hints;

/// How the program ends; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line was wrong. Also what `clap` exits with.
    WrongUse = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
    exit: Exit,
}

impl Failure {
    /// The arguments contradict each other or lack something that `clap` cannot see.
    pub(crate) fn wrong_use(message: impl Into<String>) -> Self {
        Self { error: message.into().into(), hints: Vec::new(), exit: Exit::WrongUse }
    }

    /// Adds a sentence that helps.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Tells the failure on standard error and returns how to exit.
    pub(crate) fn report(self) -> Exit {
        if self.is_broken_pipe() {
            return Exit::Done;
        }
        let mut text = format!("error: {}", chain(&*self.error));
        for hint in self.hints.iter().chain(&hints(&*self.error)) {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text.push('\n');
        // Nobody is left to tell when standard error is gone.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        self.exit
    }

    /// The reader of standard output has seen enough and went away.
    fn is_broken_pipe(&self) -> bool {
        let io = self.error.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = self.error.downcast_ref::<serde_json::Error>();
        io.or_else(|| json.and_then(serde_json::Error::io_error_kind))
            == Some(io::ErrorKind::BrokenPipe)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: Box::new(error), hints: Vec::new(), exit: Exit::Failed }
    }
}

/// `error` and its causes, outermost first.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
