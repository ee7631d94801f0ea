//! What came of the jobs.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::test_run::Counts;

/// What came of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed(Duration),
    Failed(Duration),
    /// A job before it failed.
    NotRun,
}

/// What came of all jobs so far.
#[derive(Debug, Default)]
pub(super) struct Summary {
    jobs: Vec<(String, Outcome)>,
    /// What came of the tests.
    pub(super) tests: Counts,
}

impl Summary {
    pub(super) fn add(&mut self, job: String, outcome: Outcome) {
        self.jobs.push((job, outcome));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.jobs.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }

    /// The tests that failed; a run that failed otherwise counts as one, so that a failed run never
    /// says that nothing failed.
    fn failed(&self) -> u64 {
        self.tests.failed.max(u64::from(self.has_failed()))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (job, outcome) in &self.jobs {
            table.add_row([job.clone(), outcome.to_string(), outcome.seconds()]);
        }
        if let Some(seconds) = table.column_mut(2) {
            seconds.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "\n{}\n", table.trim_fmt())?;
        writeln!(f, "{} passed, {} failed", self.tests.passed, self.failed())
    }
}

impl Outcome {
    fn seconds(self) -> String {
        match self {
            Self::Passed(took) | Self::Failed(took) => format!("{:.1} s", took.as_secs_f64()),
            Self::NotRun => String::new(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed(_) => "passed",
            Self::Failed(_) => "FAILED",
            Self::NotRun => "not run",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_line(summary: &Summary) -> String {
        summary.to_string().lines().last().unwrap().to_owned()
    }

    #[test]
    fn the_last_line_is_the_sum_of_the_tests() {
        let tests = Counts { passed: 321, failed: 0 };
        let mut summary = Summary { jobs: Vec::new(), tests };
        summary.add("test".to_owned(), Outcome::Passed(Duration::from_secs(2)));
        assert_eq!(last_line(&summary), "321 passed, 0 failed");
        summary.tests.failed = 4;
        assert_eq!(last_line(&summary), "321 passed, 4 failed");
    }

    #[test]
    fn a_failed_run_never_says_that_nothing_failed() {
        let mut summary = Summary::default();
        summary.add("fmt".to_owned(), Outcome::Failed(Duration::from_millis(1500)));
        summary.add("test".to_owned(), Outcome::NotRun);
        assert_eq!(last_line(&summary), "0 passed, 1 failed");
        assert!(summary.to_string().contains("FAILED"));
        assert!(summary.to_string().contains("1.5 s"));
        assert!(summary.to_string().contains("not run"));
    }
}
