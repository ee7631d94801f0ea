//! Why something in an inbox was not handed over.

use std::fmt;

/// Why something in an inbox was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Skip {
    /// It is not ours: a strange name, or no regular file with one link. It was neither read nor removed.
    Foreign,
    /// The file was not whole, however often it was read; what was whole of it was taken.
    Torn,
    /// A number that never came although a later one did.
    Missing,
    /// The file was longer than any of ours.
    Oversized,
    /// The file was for another run.
    WrongRun,
    /// The file says that it is another one than its name says.
    Misnamed,
    /// Its number had been passed: it came too late, or a second time.
    Passed,
    /// It could not be opened or read.
    Unreadable,
}

/// How often something was skipped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped([u64; Skip::ALL.len()]);

impl Skip {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Foreign,
        Self::Torn,
        Self::Missing,
        Self::Oversized,
        Self::WrongRun,
        Self::Misnamed,
        Self::Passed,
        Self::Unreadable,
    ];

    /// Its name for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Torn => "torn",
            Self::Missing => "missing",
            Self::Oversized => "oversized",
            Self::WrongRun => "wrong-run",
            Self::Misnamed => "misnamed",
            Self::Passed => "passed",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Skipped {
    /// How often for this reason.
    pub fn of(&self, skip: Skip) -> u64 {
        self.0[skip as usize]
    }

    /// Every reason and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Skip, u64)> + use<> {
        let counts = self.0;
        Skip::ALL.into_iter().map(move |skip| (skip, counts[skip as usize]))
    }

    /// Counts up to the largest number there is.
    pub fn count(&mut self, skip: Skip, times: u64) {
        let count = &mut self.0[skip as usize];
        *count = count.saturating_add(times);
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
