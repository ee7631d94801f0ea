//! TCP whose every octet is compared.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};

use lab::Host;

use super::{PATIENCE, Pattern, soon};

/// Octets that are written and read at a time.
const CHUNK: usize = 64 << 10;

/// A connection from one host to another: the client's end and the server's.
pub(crate) fn connect(from: &Host, to: &Host, address: IpAddr) -> (TcpStream, TcpStream) {
    let listener = to.run(move || TcpListener::bind((address, 0))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap();
    let client = from.run(move || TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    soon().wait_readable(&[listener.as_fd()]).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(false).unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
        end.set_write_timeout(Some(PATIENCE)).unwrap();
        end.set_nodelay(true).unwrap();
    }
    (client, server)
}

/// Sends `octets` each way at the same time, and fails unless exactly those arrive.
pub(crate) fn assert_transfers(from: &Host, to: &Host, address: IpAddr, octets: usize) {
    let (client, server) = connect(from, to, address);
    thread::scope(|scope| {
        scope.spawn(|| send(&client, 1, octets));
        scope.spawn(|| send(&server, 2, octets));
        scope.spawn(|| receive(&client, 2, octets));
        receive(&server, 1, octets);
    });
}

fn send(mut stream: &TcpStream, seed: u64, octets: usize) {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; CHUNK];
    let mut left = octets;
    while left > 0 {
        pattern.fill(&mut chunk);
        let count = left.min(CHUNK);
        stream.write_all(&chunk[..count]).unwrap();
        left -= count;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive(mut stream: &TcpStream, seed: u64, octets: usize) {
    let mut pattern = Pattern::new(seed);
    let (mut expected, mut chunk) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = octets;
    while left > 0 {
        pattern.fill(&mut expected);
        let count = left.min(CHUNK);
        stream.read_exact(&mut chunk[..count]).unwrap();
        assert!(chunk[..count] == expected[..count], "wrong octets, {left} before the end");
        left -= count;
    }
    assert_eq!(stream.read(&mut chunk).unwrap(), 0, "more than was sent");
}

/// A connection whose server sends back what it gets, to be used over a long time.
#[derive(Debug)]
pub(crate) struct Session {
    client: TcpStream,
    pattern: Pattern,
    server: Option<JoinHandle<()>>,
}

impl Session {
    pub(crate) fn begin(from: &Host, to: &Host, address: IpAddr) -> Self {
        let (client, server) = connect(from, to, address);
        let server = thread::spawn(move || {
            let (mut input, mut output) = (&server, &server);
            let _ = std::io::copy(&mut input, &mut output);
        });
        Self { client, pattern: Pattern::new(7), server: Some(server) }
    }

    /// Sends `octets` that were not sent before; they come back in [`Self::assert_echoes`].
    pub(crate) fn send(&mut self, octets: usize) -> Vec<u8> {
        let sent = self.pattern.octets(octets);
        self.client.write_all(&sent).unwrap();
        sent
    }

    /// Fails unless exactly `sent` comes back.
    pub(crate) fn assert_echoes(&mut self, sent: &[u8]) {
        let mut received = vec![0; sent.len()];
        self.client.read_exact(&mut received).unwrap();
        assert!(received == *sent, "the session carries wrong octets");
    }

    /// Sends `octets` and fails unless exactly those come back.
    pub(crate) fn exchange(&mut self, octets: usize) {
        let sent = self.send(octets);
        self.assert_echoes(&sent);
    }

    /// The client's address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.client.local_addr().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(server) = self.server.take() {
            // Its end comes by the end of the stream, unless the tunnel is broken.
            let ended = soon().wait_until(|| server.is_finished().then_some(()));
            if ended.is_ok() {
                let _ = server.join();
            }
        }
    }
}
