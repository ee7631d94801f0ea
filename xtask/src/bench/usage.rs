//! What a process and its children have used, from `/proc` (proc_pid_stat(5), proc_pid_status(5)).

use std::fs;
use std::time::Duration;

use crate::failure::Failure;

/// The time that all threads of a process and of its living children have spent on a processor, in
/// user and in kernel mode.
pub(super) fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let one = |pid: u32| {
        ticks(&read(pid, "stat")?)
            .map(|ticks| Duration::from_secs(ticks) / tick_rate())
            .ok_or_else(|| Failure::new(format!("/proc/{pid}/stat lacks utime or stime")))
    };
    family(pid)?.into_iter().map(one).sum()
}

/// The most memory that a process and its living children have had at any time, each for itself, in
/// octets.
pub(super) fn peak_memory(pid: u32) -> Result<u64, Failure> {
    let one = |pid: u32| {
        high_water_mark(&read(pid, "status")?)
            .ok_or_else(|| Failure::new(format!("/proc/{pid}/status lacks VmHWM")))
    };
    family(pid)?.into_iter().map(one).sum()
}

/// A process and its children.
fn family(pid: u32) -> Result<Vec<u32>, Failure> {
    let children = read(pid, &format!("task/{pid}/children"))?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    Ok(std::iter::once(pid).chain(children).collect())
}

fn read(pid: u32, file: &str) -> Result<String, Failure> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| Failure::of(format!("read {path}"), error))
}

/// `utime` and `stime`, which are fields 14 and 15; the second field may hold any character and ends
/// with the last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    utime.checked_add(stime)
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Ticks in a second.
fn tick_rate() -> u32 {
    u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 120 0 0 0 31 11 0 0 20 0 4 0 99 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn the_high_water_mark_is_in_kibibytes() {
        let status = "Name:\tadit\nVmPeak:\t  9000 kB\nVmHWM:\t    5120 kB\nVmRSS:\t 4000 kB\n";
        assert_eq!(high_water_mark(status), Some(5 << 20));
        assert_eq!(high_water_mark("Name:\tadit\n"), None);
    }
}
