//! ICMP echo, as ping(8) does it: raw sockets here, the kernel there.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use lab::{Deadline, Host};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
};
use wire::checksum::checksum;

use super::{PATIENCE, Pattern, soon};

/// ICMP's echo and its reply (RFC 792), then ICMPv6's (RFC 4443).
const TYPES_V4: (u8, u8) = (8, 0);
const TYPES_V6: (u8, u8) = (128, 129);

/// How long an answer may take before it is asked again, while the way is expected to come.
const RETRY: Duration = Duration::from_millis(20);

/// After which a way is taken for broken.
const PAUSE: Duration = Duration::from_millis(500);

/// Sends echo requests from one host to one address.
#[derive(Debug)]
pub(crate) struct Pinger {
    socket: OwnedFd,
    target: IpAddr,
    id: u16,
    sequence: u16,
    buffer: Vec<u8>,
}

impl Pinger {
    pub(crate) fn new(host: &Host, target: IpAddr) -> Self {
        static ID: AtomicU16 = AtomicU16::new(1);
        let socket = host.run(move || {
            let (family, protocol) = match target {
                IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
                IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol)).unwrap()
        });
        let id = ID.fetch_add(1, Ordering::Relaxed);
        Self { socket, target, id, sequence: 0, buffer: vec![0; 65_536] }
    }

    /// Fails unless an echo with so many octets of payload comes back as it was sent.
    pub(crate) fn assert_answers(&mut self, payload: usize) {
        let answered = self.ask(payload, Deadline::after(PATIENCE));
        assert!(answered, "{} does not answer {payload} octets", self.target);
    }

    /// Asks again and again until the first answer comes.
    pub(crate) fn wait_for_answer(&mut self) {
        let answered = soon().wait_until(|| self.ask(56, Deadline::after(RETRY)).then_some(()));
        answered.unwrap_or_else(|error| panic!("{} does not answer: {error}", self.target));
    }

    /// Whether an echo is answered within [`PAUSE`].
    pub(crate) fn is_answered_soon(&mut self) -> bool {
        self.ask(56, Deadline::after(PAUSE))
    }

    /// Whether an echo is answered in time.
    fn ask(&mut self, payload: usize, deadline: Deadline<'_>) -> bool {
        self.sequence += 1;
        let request = self.request(payload);
        // Refused as long as there is no route or address.
        if sendto(&self.socket, &request, SendFlags::empty(), &SocketAddr::new(self.target, 0))
            .is_err()
        {
            return false;
        }
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((count, _)) if self.is_reply(&self.buffer[..count], &request) => return true,
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if deadline.wait_readable(&[self.socket.as_fd()]).is_err() {
                        return false;
                    }
                }
                Err(error) => panic!("receive from {}: {error}", self.target),
            }
        }
    }

    /// Type, code, checksum, identifier, sequence number, payload.
    fn request(&self, payload: usize) -> Vec<u8> {
        let (kind, _) = self.types();
        let mut request = vec![kind, 0, 0, 0];
        request.extend(self.id.to_be_bytes());
        request.extend(self.sequence.to_be_bytes());
        request.extend(Pattern::new(u64::from(self.sequence)).octets(payload));
        // The kernel computes that of ICMPv6.
        if self.target.is_ipv4() {
            let sum = checksum(&request);
            request[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        request
    }

    fn is_reply(&self, received: &[u8], request: &[u8]) -> bool {
        let (_, kind) = self.types();
        let header = if self.target.is_ipv4() { usize::from(received[0] & 0x0f) * 4 } else { 0 };
        let message = &received[header..];
        message.len() == request.len() && message[0] == kind && message[4..] == request[4..]
    }

    fn types(&self) -> (u8, u8) {
        if self.target.is_ipv4() { TYPES_V4 } else { TYPES_V6 }
    }
}

/// Fails unless `target` answers `host`.
pub(crate) fn assert_answers(host: &Host, target: IpAddr) {
    Pinger::new(host, target).assert_answers(56);
}
