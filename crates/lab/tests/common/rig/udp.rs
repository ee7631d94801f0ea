//! UDP whose every octet is compared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use lab::Host;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown, sockopt};

use super::{PATIENCE, Pattern};

/// The largest payload of a UDP datagram over IPv4.
pub(crate) const MAX_PAYLOAD: usize = 65_507;

/// Octets of datagrams that may wait at a socket, as the kernel accounts for them.
const QUEUE_OCTETS: usize = 8 << 20;

/// Sends every datagram back to where it came from, until it is dropped.
#[derive(Debug)]
pub(crate) struct Echo {
    socket: Arc<UdpSocket>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Serves `address`, which `host` has.
    pub(crate) fn serve(host: &Host, address: IpAddr) -> Self {
        let socket = Arc::new(bind(host, SocketAddr::new(address, 0)));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (socket, over) = (Arc::clone(&socket), Arc::clone(&over));
            thread::spawn(move || {
                let mut buffer = vec![0; MAX_PAYLOAD];
                loop {
                    // A socket that was shut down is readable, too.
                    let _ = poll(&mut [PollFd::new(&*socket, PollFlags::IN)], None);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok((count, sender)) = socket.recv_from(&mut buffer) else { return };
                    // Refused while the way back is disturbed, which its tests then see.
                    let _ = socket.send_to(&buffer[..count], sender);
                }
            })
        };
        Self { socket, over, thread: Some(thread) }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread; "not connected" is said of every UDP socket that is not.
        let _ = shutdown(&*self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket of `host` that waits for datagrams no longer than it is reasonable.
pub(crate) fn bind(host: &Host, local: SocketAddr) -> UdpSocket {
    let socket = host.run(move || UdpSocket::bind(local)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Beyond the system's limit only for root of the machine; the limit does otherwise.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_OCTETS);
    socket
}

/// A socket of `host` that talks to `target` only.
pub(crate) fn connect(host: &Host, target: SocketAddr) -> UdpSocket {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = bind(host, SocketAddr::new(any, 0));
    host.run({
        let socket = socket.try_clone().unwrap();
        move || socket.connect(target)
    })
    .unwrap();
    socket
}

/// Sends `payload` to an echo and fails unless exactly that comes back.
pub(crate) fn assert_echoes(client: &UdpSocket, payload: &[u8], buffer: &mut [u8]) {
    client.send(payload).unwrap();
    let received = client.recv(buffer);
    let count = received.unwrap_or_else(|error| panic!("{} octets: {error}", payload.len()));
    assert!(buffer[..count] == *payload, "{} octets came back wrong", payload.len());
}

/// Payloads of all `sizes`, and what they bring back from an echo at `address` of `to`.
pub(crate) fn assert_sizes_echo(
    from: &Host,
    to: &Host,
    address: IpAddr,
    sizes: impl IntoIterator<Item = usize>,
    mut after_each: impl FnMut(),
) {
    let echo = Echo::serve(to, address);
    let client = connect(from, echo.address());
    let mut buffer = vec![0; MAX_PAYLOAD];
    for size in sizes {
        let payload = Pattern::new(size as u64 + 1).octets(size);
        assert_echoes(&client, &payload, &mut buffer);
        after_each();
    }
}
