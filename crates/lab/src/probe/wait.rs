//! Waiting for descriptors, until a deadline at the latest.

use std::net::UdpSocket;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::error::ProbeError;

/// How much a socket may hold between two turns, in octets, if the kernel allows it.
///
/// Some 5,000 small datagrams: the kernel accounts for at least 768 octets each.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Waits until one of `fds` is ready or `deadline` has come; `None` waits without end.
///
/// Signals do not end the wait.
pub(super) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<(), ProbeError> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(fds, left.map(timespec).as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ProbeError::Wait(errno.into())),
        }
    }
}

/// A wait for `stop`, which counts as ready too when its other end is gone.
pub(super) fn stop_fd(stop: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(stop, PollFlags::IN)
}

/// Whether the last wait found anything on `fd`.
pub(super) fn is_ready(fd: &PollFd<'_>) -> bool {
    !fd.revents().is_empty()
}

/// Asks for a large receive buffer; smaller ones lose more, but work.
pub(super) fn enlarge_receive_buffer(socket: &UdpSocket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER);
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_closed_pipe_is_a_stop() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut fds = [stop_fd(reader.as_fd())];
        wait(&mut fds, Some(Instant::now())).unwrap();
        assert!(!is_ready(&fds[0]));
        drop(writer);
        wait(&mut fds, None).unwrap();
        assert!(is_ready(&fds[0]));
    }

    #[test]
    fn waits_no_longer_than_the_deadline() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut fds = [stop_fd(reader.as_fd())];
        let deadline = Instant::now() + Duration::from_millis(5);
        wait(&mut fds, Some(deadline)).unwrap();
        assert!(Instant::now() >= deadline);
        assert!(!is_ready(&fds[0]));
    }
}
