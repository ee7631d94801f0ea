//! TCP throughput between two hosts.
//!
//! Both sockets are opened inside their hosts and then served by two threads of this process: one
//! writes as fast as it can until the other, which reads and counts, has done so for the duration.
//! The rate is that of the receiver, so what fills buffers at the sender does not count. Congestion
//! control is CUBIC in every run, whatever the machine's default is, as long as the kernel has it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::deadline::{Deadline, Interrupt, WaitError};
use crate::host::Host;

/// How long the connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long sending and receiving may go on after the duration, when nothing moves any more.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Octets that are written and read at a time.
const CHUNK: usize = 128 << 10;

/// The congestion control that all kernels have and that is the default of most (RFC 9438).
const CONGESTION_CONTROL: &str = "cubic";

/// What arrived in a measurement.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Throughput {
    /// Octets of user data that the receiver read.
    pub octets: u64,
    /// Seconds from its first octet to its last.
    pub seconds: f64,
    /// User data per second, in bits.
    pub bits_per_second: f64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum ThroughputError {
    /// The receiver could not listen.
    #[error("listen on {address} in host {host}")]
    Listen {
        /// The address.
        address: IpAddr,
        /// The receiver's name.
        host: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The sender found nobody.
    #[error("connect from host {host} to {address}")]
    Connect {
        /// The receiver's address.
        address: SocketAddr,
        /// The sender's name.
        host: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The connection did not come through or the measurement was interrupted.
    #[error("measure throughput to {address}")]
    Wait {
        /// The receiver's address.
        address: SocketAddr,
        /// The cause.
        source: WaitError,
    },
    /// The connection broke.
    #[error("receive from host {host}")]
    Receive {
        /// The sender's name.
        host: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The connection carried nothing.
    #[error("receive from host {host}: no data arrived")]
    Nothing {
        /// The sender's name.
        host: &'static str,
    },
}

/// Sends from `sender` to `address`, which `receiver` has, for `duration`, and measures what arrives.
///
/// Returns at the latest some seconds after `duration`, and soon after `interrupt` arrives.
pub fn measure(
    sender: &Host,
    receiver: &Host,
    address: IpAddr,
    duration: Duration,
    interrupt: Option<&Interrupt>,
) -> Result<Throughput, ThroughputError> {
    let (output, input) = connect(sender, receiver, address, interrupt)?;
    let target = output.peer_addr().unwrap_or_else(|_| SocketAddr::new(address, 0));
    let patience = duration + END_PATIENCE;
    let deadline = deadline(patience, interrupt);
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&output));
        let receiving = scope.spawn(|| receive(&input, duration));
        let ended = deadline.wait_until(|| receiving.is_finished().then_some(()));
        // Both threads stop at once, whatever they wait for.
        let _ = output.shutdown(Shutdown::Both);
        let _ = input.shutdown(Shutdown::Both);
        let received = receiving.join().expect("receiving does not panic");
        // A sender's error is the receiver's too, or comes from the end of the measurement.
        let _ = sending.join();
        ended.map_err(|source| ThroughputError::Wait { address: target, source })?;
        let received =
            received.map_err(|source| ThroughputError::Receive { host: sender.name(), source })?;
        received.ok_or_else(|| ThroughputError::Nothing { host: sender.name() })
    })
}

fn deadline(patience: Duration, interrupt: Option<&Interrupt>) -> Deadline<'_> {
    match interrupt {
        Some(interrupt) => Deadline::after_or(patience, interrupt),
        None => Deadline::after(patience),
    }
}

/// A connection: the sender's end and the receiver's.
pub(crate) fn connect(
    sender: &Host,
    receiver: &Host,
    address: IpAddr,
    interrupt: Option<&Interrupt>,
) -> Result<(TcpStream, TcpStream), ThroughputError> {
    let listening = |source| ThroughputError::Listen { address, host: receiver.name(), source };
    let anywhere = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let listener = receiver.run(move || listen(anywhere)).map_err(listening)?;
    let port = listener.local_addr().map_err(listening)?.port();
    let target = SocketAddr::new(address, port);
    let connecting =
        |source| ThroughputError::Connect { address: target, host: sender.name(), source };
    let patience = deadline(CONNECT_PATIENCE, interrupt);
    let waiting = |source| ThroughputError::Wait { address: target, source };
    let output = sender.run(move || begin_to_connect(target)).map_err(connecting)?;
    patience.wait_writable(output.as_fd()).map_err(waiting)?;
    if let Some(error) = output.take_error().map_err(connecting)? {
        return Err(connecting(error));
    }
    output.set_nonblocking(false).map_err(connecting)?;
    // Some kernels lack it; then the default must do.
    let _ = sockopt::set_tcp_congestion(&output, CONGESTION_CONTROL);
    output.set_write_timeout(Some(END_PATIENCE)).map_err(connecting)?;
    patience.wait_readable(&[listener.as_fd()]).map_err(waiting)?;
    let (input, _) = listener.accept().map_err(listening)?;
    input.set_nonblocking(false).map_err(listening)?;
    input.set_read_timeout(Some(END_PATIENCE)).map_err(listening)?;
    Ok((output, input))
}

fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, 0))?;
    // A connection that was reset between poll and accept must not block the caller.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection that is being made and can be written to once it stands.
fn begin_to_connect(target: SocketAddr) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Writes until the connection is shut down, which is when the receiver has seen enough.
fn send(mut output: &TcpStream) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    loop {
        output.write_all(&chunk)?;
    }
}

/// Reads until the stream ends or `duration` is over; `None` if nothing came.
fn receive(mut input: &TcpStream, duration: Duration) -> io::Result<Option<Throughput>> {
    let mut chunk = vec![0; CHUNK];
    if input.read(&mut chunk)? == 0 {
        return Ok(None);
    }
    // The octets that start the clock are not counted: they came before it ran.
    let start = Instant::now();
    let (mut octets, mut elapsed) = (0_u64, Duration::ZERO);
    while elapsed < duration {
        match input.read(&mut chunk)? {
            0 => break,
            count => octets += count as u64,
        }
        elapsed = start.elapsed();
    }
    let seconds = elapsed.as_secs_f64();
    if octets == 0 || seconds == 0.0 {
        return Ok(None);
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    let bits_per_second = octets as f64 * 8.0 / seconds;
    Ok(Some(Throughput { octets, seconds, bits_per_second }))
}
