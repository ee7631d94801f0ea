//! How the file system misbehaves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

/// The file from which the server learns of it.
const FILE: &str = "faults";

/// How the file system misbehaves; not at all by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// For how long a new file of somebody else has half its size (virtiofs).
    pub(crate) stale: Duration,
    /// After how long at most a new file of somebody else has a name, each after its own time (9p).
    pub(crate) late: Duration,
    /// For how long a new file of somebody else has zeros in its second half (vboxsf, RDP).
    pub(crate) torn: Duration,
    /// Every so often an operation fails with EIO, if not 0.
    pub(crate) eio: u64,
    /// Every so often something that takes room fails with ENOSPC, if not 0.
    pub(crate) enospc: u64,
    /// What renaming without replacing, and any renaming, fails with, if not 0.
    pub(crate) exclusive_rename: i32,
    pub(crate) rename: i32,
    /// What everything fails with, if not 0.
    pub(crate) dead: i32,
}

impl Faults {
    pub(super) fn write(&self, home: &Path) {
        let numbers = [
            u64::try_from(self.stale.as_millis()).unwrap(),
            u64::try_from(self.late.as_millis()).unwrap(),
            u64::try_from(self.torn.as_millis()).unwrap(),
            self.eio,
            self.enospc,
            self.exclusive_rename.unsigned_abs().into(),
            self.rename.unsigned_abs().into(),
            self.dead.unsigned_abs().into(),
        ];
        let text = numbers.map(|number| number.to_string()).join(" ");
        let (draft, file) = (home.join("faults.new"), home.join(FILE));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, file).unwrap();
    }

    pub(super) fn read(home: &Path) -> Self {
        let text = fs::read_to_string(home.join(FILE)).unwrap_or_default();
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let errno = |number| i32::try_from(number).unwrap();
        Self {
            stale: Duration::from_millis(next()),
            late: Duration::from_millis(next()),
            torn: Duration::from_millis(next()),
            eio: next(),
            enospc: next(),
            exclusive_rename: errno(next()),
            rename: errno(next()),
            dead: errno(next()),
        }
    }
}

/// An error to misbehave with.
pub(super) fn fails(errno: i32) -> Result<(), Errno> {
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno)) }
}
