//! The system calls that a running worker may make; any other kills it.
//!
//! # Theory of operation
//!
//! The list was measured with strace(1) while packets were carried, refused and reported, threads ended and
//! panicked, and memory grew; glibc and the standard library need some calls only in such moments. What
//! musl calls differently in these moments is in it, too. The architecture is checked before the number, and
//! the numbers of x32 are not on the list.
//!
//! glibc's heap needs a setting to get along with the list ([`ENVIRONMENT`](super::ENVIRONMENT)).
//! A panic that asks for a backtrace would open files; it prints its line first and is killed then.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use thiserror::Error;

/// Packets: the device is read and written, sockets move batches. The channel uses the single forms, an
/// eventfd and standard error the plain ones.
const PACKETS: &[libc::c_long] = &[
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_write,
];

/// Waiting: lanes in epoll, the first thread in poll; and what the kernel puts in place of a call that a stop signal
/// interrupted.
const WAITING: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
];

/// Memory that is given back, or that a heap grows by. What asks for memory is restricted further: [`memory`].
const MEMORY: &[libc::c_long] =
    &[libc::SYS_brk, libc::SYS_munmap, libc::SYS_madvise, libc::SYS_mremap];

/// Threads that wait for each other and end: locks, the alternative signal stack, and the restartable
/// sequence and list of locks that glibc takes back.
const THREADS: &[libc::c_long] = &[
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_membarrier,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
];

/// Clocks, where the kernel's page for them (vdso(7)) does not serve: some virtual machines have no other way.
/// Random octets, which the standard library's maps begin with.
const SURROUNDINGS: &[libc::c_long] =
    &[libc::SYS_clock_gettime, libc::SYS_gettimeofday, libc::SYS_getrandom];

/// Files in shared folders, for a worker that has any; landlock(7) says which. A side that was removed makes its
/// inbox again.
const FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_fstat,
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_getdents64,
    libc::SYS_fchmod,
    libc::SYS_mkdirat,
    libc::SYS_utimensat,
    libc::SYS_flock,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
];

/// The end: descriptors are closed; a fault is told by the standard library's handler, which then gives the signal back
/// its default; abort(3) does likewise. The signal to oneself is restricted further: [`own_signal`].
const END: &[libc::c_long] =
    &[libc::SYS_close, libc::SYS_rt_sigaction, libc::SYS_rt_sigreturn, libc::SYS_exit_group];

/// Why system calls are not restricted.
#[derive(Debug, Error)]
pub(in crate::worker) enum FilterError {
    /// There is no filter for this architecture.
    #[error("no filter for {}", std::env::consts::ARCH)]
    Architecture,
    /// The filter cannot be made or is refused.
    #[error(transparent)]
    Refused(#[from] seccompiler::Error),
}

/// Restricts all threads of the process. They must have been forbidden new privileges.
pub(in crate::worker) fn apply(folders: bool) -> Result<(), FilterError> {
    let program = program(folders)?;
    Ok(seccompiler::apply_filter_all_threads(&program)?)
}

fn program(folders: bool) -> Result<BpfProgram, FilterError> {
    let architecture =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|_| FilterError::Architecture)?;
    let filter = SeccompFilter::new(
        rules(folders).map_err(seccompiler::Error::from)?,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        architecture,
    );
    let program = filter.and_then(BpfProgram::try_from);
    Ok(program.map_err(seccompiler::Error::from)?)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(folders: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut plain = [PACKETS, WAITING, MEMORY, THREADS, SURROUNDINGS, END].concat();
    if folders {
        plain.extend(FILES);
    }
    // A call without rules is allowed whatever its arguments.
    let mut rules: Rules = plain.into_iter().map(|call| (call, Vec::new())).collect();
    rules.extend(memory()?);
    rules.insert(libc::SYS_tgkill, vec![own_signal()?]);
    rules.insert(libc::SYS_fcntl, vec![is_open()?]);
    Ok(rules)
}

/// Memory is never executable, and no file is mapped.
fn memory() -> Result<Rules, seccompiler::BackendError> {
    let not_executable = argument(2, clear(libc::PROT_EXEC), 0)?;
    let anonymous = bits(libc::MAP_ANONYMOUS);
    let anonymous = argument(3, SeccompCmpOp::MaskedEq(anonymous), anonymous)?;
    let map = SeccompRule::new(vec![not_executable.clone(), anonymous])?;
    let protect = SeccompRule::new(vec![not_executable])?;
    Ok(BTreeMap::from([(libc::SYS_mmap, vec![map]), (libc::SYS_mprotect, vec![protect])]))
}

/// Whether a descriptor is open, which the standard library asks before it closes one in a build with debug assertions.
fn is_open() -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, bits(libc::F_GETFD))?])
}

/// Signals only to threads of this process.
fn own_signal() -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![argument(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?])
}

fn argument(
    place: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Dword, operator, value)
}

fn clear(flag: libc::c_int) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(bits(flag))
}

fn bits(flag: libc::c_int) -> u64 {
    u64::from(flag.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    /// Tells a second process of this test program that it is the one.
    const SECOND: &str = "ADIT_TEST_RESTRICTED";

    /// How the second process says that it was not killed.
    const ALIVE: i32 = 7;

    /// Does `deed` in a process that is restricted, on a thread that was there before: how it ended, and what it said.
    ///
    /// `test` is the name of the calling test, which the second process runs.
    fn restricted(test: &str, deed: fn()) -> (ExitStatus, String) {
        if std::env::var_os(SECOND).is_some() {
            do_restricted(deed);
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("worker::confine::filter::tests::{test}")]);
        command.args(["--nocapture", "--test-threads=1"]).env(SECOND, "yes");
        command.envs(super::super::ENVIRONMENT);
        let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn do_restricted(deed: fn()) -> ! {
        let gate = Arc::new(Barrier::new(2));
        let there = Arc::clone(&gate);
        let thread = thread::spawn(move || {
            there.wait();
            there.wait();
            deed();
        });
        gate.wait();
        rustix::thread::set_no_new_privs(true).unwrap();
        apply(false).unwrap();
        gate.wait();
        let _ = thread.join();
        std::process::exit(ALIVE);
    }

    fn assert_is_killed_by(test: &str, deed: fn()) {
        let (status, said) = restricted(test, deed);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {said}");
    }

    #[test]
    fn a_file_cannot_be_opened() {
        assert_is_killed_by("a_file_cannot_be_opened", || {
            let _ = std::fs::File::open("/dev/null");
        });
    }

    #[test]
    fn a_socket_cannot_be_made() {
        assert_is_killed_by("a_socket_cannot_be_made", || {
            let _ = std::net::UdpSocket::bind("127.0.0.1:0");
        });
    }

    #[test]
    fn a_program_cannot_be_started() {
        assert_is_killed_by("a_program_cannot_be_started", || {
            let _ = Command::new("/bin/true").status();
        });
    }

    #[test]
    fn a_signal_to_another_process_cannot_be_sent() {
        assert_is_killed_by("a_signal_to_another_process_cannot_be_sent", || {
            let parent = rustix::process::getppid().unwrap();
            let _ = rustix::process::kill_process(parent, rustix::process::Signal::CONT);
        });
    }

    #[test]
    fn a_thread_panics_alone_and_says_so() {
        let (status, said) =
            restricted("a_thread_panics_alone_and_says_so", || panic!("out of coal"));
        assert_eq!(status.code(), Some(ALIVE), "{status}: {said}");
        assert!(said.contains("out of coal"), "{said}");
    }

    #[test]
    fn a_descriptor_cannot_be_duplicated() {
        assert_is_killed_by("a_descriptor_cannot_be_duplicated", || {
            let _ = std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned();
        });
    }

    #[test]
    fn an_abort_is_told_as_what_it_is() {
        let (status, said) = restricted("an_abort_is_told_as_what_it_is", || std::process::abort());
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}: {said}");
    }

    #[test]
    fn memory_grows_and_shrinks_and_time_passes() {
        let (status, said) = restricted("memory_grows_and_shrinks_and_time_passes", || {
            let mut kept = Vec::new();
            for size in [100, 10_000, 1 << 18, 1 << 26] {
                kept.extend((0..20).map(|_| vec![1_u8; size]));
                kept.truncate(10);
                kept.iter_mut().for_each(|octets| octets.reserve(3 * size));
            }
            let map: std::collections::HashMap<_, _> = kept.iter().enumerate().collect();
            assert_eq!(map.len(), kept.len());
            let since = std::time::Instant::now();
            thread::park_timeout(std::time::Duration::from_millis(1));
            assert!(!since.elapsed().is_zero());
        });
        assert_eq!(status.code(), Some(ALIVE), "{status}: {said}");
    }
}
