//! Which process it is, beyond the life of its number.
//!
//! A process id is reused after its process ended; together with the time at which the process
//! started it is not. A pidfd that was opened before both were compared refers to that process only.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process of this machine, running or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks after the boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

impl Identity {
    /// The calling process.
    pub fn own() -> io::Result<Self> {
        let pid = getpid().as_raw_nonzero().get();
        Ok(Self { pid, start_time: start_time(pid)? })
    }

    /// A descriptor of the process, if it has not ended.
    pub fn open(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let is_it = start_time(self.pid).ok()? == self.start_time;
        (is_it && !has_ended(&pidfd)).then_some(pidfd)
    }
}

/// Whether the process has ended, even if its parent has not asked how (pidfd_open(2)).
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Field 22. The second field, the program's name, may hold spaces and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    const FIELDS_BETWEEN: usize = 22 - 3;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(FIELDS_BETWEEN)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_field_22_whatever_the_program_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 123456 999 88 1";
        assert_eq!(parse_start_time(stat), Some(123_456));
        assert_eq!(parse_start_time("7 (a) S 1"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn a_process_is_itself_and_not_one_that_started_at_another_time() {
        let own = Identity::own().unwrap();
        assert!(own.open().is_some());
        assert!(Identity { start_time: own.start_time + 1, ..own }.open().is_none());
    }
}
