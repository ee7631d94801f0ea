//! All tests, counted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::{adit, program, setup};

/// How many tests there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

/// Runs all tests of the workspace against the release binary and adds them to `counts`.
pub(super) fn run(counts: &mut Counts) -> Result<(), Failure> {
    setup::run()?;
    let adit = adit::build()?;
    let mut tests = program::cargo(&["test", "--workspace", "--no-fail-fast"]);
    if let Some(resolved) = setup::resolved() {
        tests.env("ADIT_RESOLVED", resolved);
    }
    let outcome = run_counting(tests.env("ADIT_BIN", adit), counts);
    match (counts.failed, counts.passed) {
        (0, 0) if outcome.is_ok() => Err(Failure::new("no test was run")),
        (0, _) => outcome,
        (failed, _) => Err(Failure::new(format!("{failed} tests failed"))),
    }
}

/// Runs `tests`, shows what it says and counts the results that it reports.
fn run_counting(tests: &mut Command, counts: &mut Counts) -> Result<(), Failure> {
    let name = program::name(tests);
    let failed = |error| Failure::of(&name, error);
    let mut child = tests.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().map(BufReader::new);
    for line in output.into_iter().flat_map(|output| output.split(b'\n')) {
        let line = line.map_err(failed)?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.add_result(&line);
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{name} ended with {status}"))) }
}

impl Counts {
    /// Adds a line `test result: ok. 12 passed; 0 failed; …`; all other lines say nothing.
    fn add_result(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let (_, counts) = result.split_once(". ").unwrap_or_default();
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_summed() {
        let mut counts = Counts::default();
        for line in [
            "running 15 tests",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.31s",
            "test 7 passed; 9 failed",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            counts.add_result(line);
        }
        assert_eq!(counts, Counts { passed: 14, failed: 1 });
    }

    #[test]
    fn tests_that_print_and_fail_are_counted_and_reported() {
        let mut counts = Counts::default();
        let script = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101";
        let failure = run_counting(Command::new("sh").args(["-c", script]), &mut counts);
        assert_eq!(counts, Counts { passed: 1, failed: 2 });
        assert!(failure.unwrap_err().to_string().contains("exit status: 101"));
    }
}
