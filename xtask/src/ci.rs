//! `cargo xtask ci`: everything that must hold before a change is accepted, in order.
//!
//! The first job that fails ends the run. Whatever happens, the last lines are a table of the jobs and
//! the sums `N passed, N failed`.

mod summary;
mod test_run;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::{adit, deps, program};
use summary::{Outcome, Summary};
use test_run::Counts;

#[derive(Debug, Args)]
pub(crate) struct CiArgs {
    /// What to check; everything if none is named.
    #[arg(value_enum)]
    jobs: Vec<Job>,
}

/// One thing to check; the order is that in which all are run, the quick ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Job {
    /// The sources look as rustfmt wants them.
    Fmt,
    /// The rules of the house hold.
    Deps,
    /// Clippy has nothing to say.
    Clippy,
    /// The documentation can be made and its links lead somewhere.
    Doc,
    /// The program can be built for use.
    Build,
    /// All tests pass, those that need privilege included.
    Test,
}

/// Runs the jobs.
pub(crate) fn run(args: &CiArgs) -> ExitCode {
    let mut summary = Summary::default();
    for job in Job::value_variants() {
        let wanted = args.jobs.is_empty() || args.jobs.contains(job);
        let outcome = match (wanted, summary.has_failed()) {
            (false, _) => continue,
            (true, true) => Outcome::NotRun,
            (true, false) => attempt(*job, &mut summary),
        };
        summary.add(job.name(), outcome);
    }
    print!("{summary}");
    if summary.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs one job between a line before and a line after it.
fn attempt(job: Job, summary: &mut Summary) -> Outcome {
    let name = job.name();
    println!("=== {name}");
    let start = Instant::now();
    let result = job.run(&mut summary.tests);
    let took = start.elapsed();
    match result {
        Ok(()) => {
            println!("=== {name}: passed after {:.1} s", took.as_secs_f64());
            Outcome::Passed(took)
        }
        Err(failure) => {
            println!("=== {name}: FAILED after {:.1} s: {failure}", took.as_secs_f64());
            Outcome::Failed(took)
        }
    }
}

impl Job {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, tests: &mut Counts) -> Result<(), Failure> {
        match self {
            Self::Fmt => program::run(&mut program::cargo(&["fmt", "--all", "--check"])),
            Self::Deps => deps::check(),
            Self::Clippy => clippy(),
            Self::Doc => doc(),
            Self::Build => adit::build().map(drop),
            Self::Test => test_run::run(tests),
        }
    }
}

fn clippy() -> Result<(), Failure> {
    let what = ["clippy", "--workspace", "--all-targets"];
    program::run(program::cargo(&what).args(["--", "-D", "warnings"]))
}

fn doc() -> Result<(), Failure> {
    let what = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    program::run(program::cargo(&what).env("RUSTDOCFLAGS", "-Dwarnings"))
}
