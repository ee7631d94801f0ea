//! A network namespace for every test, and what the tests do in it.
//!
//! ```text
//!   namespace of the test
//!   +--------------------------------------------------+
//!   |  UDP socket --- device 10.9.0.1/24 === Queue     |
//!   +--------------------------------------------------+
//! ```

#![allow(dead_code, reason = "every test file uses another part")]

#[expect(unsafe_code, reason = "UDP_SEGMENT and TUNSETVNETHDRSZ have no safe wrapper")]
pub(crate) mod sys;

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use device::{Builder, DeviceName, MAX_PACKET, Mode, Observed, Queue, Received};
use netlink::{Address, LinkIndex, Netns, Socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode as Permissions, chmod, makedev, mknodat};

/// How long a packet may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The address of the device of a test.
pub(crate) const LOCAL: &str = "10.9.0.1";

/// The directed broadcast address of it: Ethernet needs no ARP to get there.
pub(crate) const BROADCAST: &str = "10.9.0.255";

/// One test at a time: to read `/proc/PID/fdinfo`, as diagnosis does, is to keep the descriptor open
/// for that moment, and others expect a device to be free as soon as it is closed.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` on a thread in a namespace of its own, with a netlink socket there.
///
/// Without the privilege to make one, says so and lets the test pass, except in CI.
pub(crate) fn in_namespace(test: impl FnOnce(&mut Socket) + Send + 'static) {
    let namespace = match Netns::create() {
        Ok(namespace) => namespace,
        Err(error) => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no namespace: {error}");
            println!("skipped: cannot make a network namespace: {error}");
            return;
        }
    };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = std::thread::spawn(move || {
        namespace.enter().unwrap();
        test(&mut Socket::open().unwrap());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn name(text: &str) -> DeviceName {
    DeviceName::parse(text).unwrap()
}

pub(crate) fn tun(text: &str) -> Builder {
    Builder::new(name(text), Mode::Tun)
}

/// Asks rtnetlink what no ioctl tells.
pub(crate) fn observe(name: &DeviceName) -> Option<Observed> {
    let tun = Socket::open().ok()?.link(name.as_str()).ok()??.tun?;
    let queues = tun.queues + tun.disabled_queues;
    Some(Observed { queues, owner: tun.owner, group: tun.group })
}

pub(crate) fn index(netlink: &mut Socket, name: &DeviceName) -> LinkIndex {
    netlink.link(name.as_str()).unwrap().unwrap().index
}

/// Gives the device [`LOCAL`] and switches it on.
pub(crate) fn configure(netlink: &mut Socket, name: &DeviceName) {
    let link = index(netlink, name);
    let local = format!("{LOCAL}/24").parse().unwrap();
    netlink.add_address(&Address { link, local, peer: None }).unwrap();
    netlink.set_up(link, true).unwrap();
}

/// A socket at [`LOCAL`] port 4000 that may send to everyone and waits for at most a deadline.
pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL, 4000)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// The next packet that carries UDP to [`BROADCAST`], link header included; what the kernel sends
/// of its own is passed over.
pub(crate) fn recv_datagram(queue: &Queue, mode: Mode) -> (Received, Vec<u8>) {
    poll_datagram(queue, mode, DEADLINE).expect("no packet in time")
}

/// As [`recv_datagram`], of `payload`, which is sent again and again: what is sent in the moment after
/// a persistent device got its carrier back is lost.
pub(crate) fn recv_sent_again(queue: &Queue, socket: &UdpSocket, payload: &[u8]) -> Vec<u8> {
    for _ in 0..100 {
        socket.send_to(payload, (BROADCAST, 5000)).unwrap();
        if let Some((_, packet)) = poll_datagram(queue, Mode::Tun, DEADLINE / 100) {
            return packet;
        }
    }
    panic!("no packet in time");
}

fn poll_datagram(queue: &Queue, mode: Mode, time: Duration) -> Option<(Received, Vec<u8>)> {
    let link = link_header(mode).len();
    let mut buffer = vec![0; MAX_PACKET];
    let deadline = Instant::now() + time;
    loop {
        match queue.recv(&mut buffer) {
            Ok(received) => {
                let packet = &buffer[..received.len];
                if packet.get(link + 16..link + 20) == Some(&[10, 9, 0, 255]) {
                    return Some((received, packet.to_vec()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_readable(queue, deadline)?;
            }
            Err(error) => panic!("recv: {error}"),
        }
    }
}

/// Waits until there is something to read, or returns none at the deadline.
fn wait_readable(queue: &Queue, deadline: Instant) -> Option<()> {
    let left = deadline.checked_duration_since(Instant::now())?;
    let timeout = Timespec::try_from(left).unwrap();
    poll(&mut [PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap();
    Some(())
}

/// What stands before an IPv4 packet on a device of this mode, to everyone on its link.
pub(crate) fn link_header(mode: Mode) -> &'static [u8] {
    match mode {
        Mode::Tun => &[],
        Mode::Tap => {
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00]
        }
    }
}

/// IPv4 and UDP from 10.9.0.2 port 5000 to 10.9.0.1 port 4000, with the five octets "hello".
pub(crate) const HELLO: [u8; 33] = [
    0x45, 0x00, 0x00, 0x21, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x26, 0xb8, 10, 9, 0, 2, 10, 9, 0,
    1, 0x13, 0x88, 0x0f, 0xa0, 0x00, 0x0d, 0x00, 0x00, b'h', b'e', b'l', b'l', b'o',
];

/// A node of the tun driver that is not the machine's, in a directory of its own.
pub(crate) struct Node {
    directory: PathBuf,
    path: PathBuf,
}

impl Node {
    /// Makes a node with these permissions.
    pub(crate) fn create(permissions: u32) -> Self {
        let directory = std::env::temp_dir().join(format!(
            "adit-device-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir(&directory).unwrap();
        chmod(&directory, Permissions::from_raw_mode(0o755)).unwrap();
        let path = directory.join("tun");
        let permissions = Permissions::from_raw_mode(permissions);
        let number = makedev(10, 200);
        mknodat(CWD, &path, FileType::CharacterDevice, permissions, number).unwrap();
        chmod(&path, permissions).unwrap();
        Self { directory, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
