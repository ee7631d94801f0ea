//! Whether packets get from one host to another, tried with datagrams of our own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::deadline::{Deadline, WaitError};
use crate::host::Host;
use crate::topology::Gateway;

/// The time from one of the datagrams that ask for an answer to the next.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Whether a datagram from A arrives at C, whose address is `c`, by way of B, which has `b` towards A.
///
/// Found without waiting for what may never come: packets of one wire do not overtake each other, so
/// what B passes on is at C before what B sends itself later.
pub(super) fn arrives(
    topology: &Gateway,
    c: IpAddr,
    b: IpAddr,
    deadline: Deadline<'_>,
) -> io::Result<bool> {
    let at_c = bind(&topology.c, c)?;
    let at_b = bind(&topology.b, b)?;
    let from_a = bind(&topology.a, anywhere(c))?;
    // Refused where there is no route; then nothing arrives.
    let _ = from_a.send_to(b"from A", at_c.local_addr()?);
    from_a.send_to(b"A has sent", at_b.local_addr()?)?;
    receive(&at_b, deadline)?;
    // From B's address on the wire to C, since C knows no other.
    let from_b = bind(&topology.b, anywhere(c))?;
    from_b.send_to(b"from B", at_c.local_addr()?)?;
    Ok(receive(&at_c, deadline)? == b"from A")
}

/// The next datagram.
fn receive(socket: &UdpSocket, deadline: Deadline<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 64];
    let length = deadline.wait_until(|| socket.recv(&mut buffer).ok()).map_err(io::Error::other)?;
    Ok(buffer.get(..length).unwrap_or_default().to_vec())
}

fn bind(host: &Host, address: IpAddr) -> io::Result<UdpSocket> {
    let socket = host.run(move || UdpSocket::bind((address, 0)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn anywhere(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A socket in A that asks, and one in C that answers.
#[derive(Debug)]
pub(super) struct Echo {
    asking: UdpSocket,
    answering: UdpSocket,
}

impl Echo {
    /// Between A and C, over IPv4.
    pub(super) fn open(a: &Host, c: &Host) -> io::Result<Self> {
        let answering = bind(c, Gateway::C.into())?;
        let asking = bind(a, Ipv4Addr::UNSPECIFIED.into())?;
        asking.connect(answering.local_addr()?)?;
        Ok(Self { asking, answering })
    }

    /// Asks again and again until there is an answer.
    pub(super) fn ask_until_answered(&self, deadline: Deadline<'_>) -> Result<(), WaitError> {
        let mut next = Instant::now();
        let mut buffer = [0; 16];
        deadline.wait_until(|| {
            if next <= Instant::now() {
                // A device without a worker may refuse it; the next one may pass.
                let _ = self.asking.send(b"answer");
                next += ASK_EVERY;
            }
            if let Ok((length, from)) = self.answering.recv_from(&mut buffer) {
                self.answer(buffer.get(..length).unwrap_or_default(), from);
            }
            self.asking.recv(&mut buffer).ok().map(|_| ())
        })
    }

    fn answer(&self, question: &[u8], from: SocketAddr) {
        // If the answer cannot be sent, the next question comes.
        let _ = self.answering.send_to(question, from);
    }
}
