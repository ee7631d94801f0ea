//! Descriptors that came from whoever has started this process.
//!
//! A shell, a service manager or a script may leave files open that it does not mean to pass on. The standard library
//! and rustix open everything so that it is closed in other programs; what was inherited is open for all of them.

use std::io;

use crate::sys;

/// Keeps all descriptors but the standard ones from the programs that this process executes from here on.
///
/// Nothing is closed in this process.
///
/// # Errors
///
/// Those of close_range(2): `EINVAL` or `ENOSYS` before Linux 5.11.
pub fn close_on_exec() -> io::Result<()> {
    sys::close_on_exec()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn what_was_inherited_is_not_passed_on() {
        // As if it was inherited: without O_CLOEXEC.
        let file = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let is_open_elsewhere = || {
            let test =
                Command::new("test").args(["-e", &format!("/proc/self/fd/{number}")]).status();
            test.unwrap().success()
        };
        assert!(is_open_elsewhere());
        close_on_exec().unwrap();
        assert!(!is_open_elsewhere());
        assert!(rustix::io::fcntl_getfd(&file).is_ok(), "it is open here");
    }
}
