//! What the internet has for a client: a page over HTTP/1.0 (RFC 1945) and the address of its name (RFC 1035).
//!
//! Both ends are served by one thread: what the client sends waits in the server's socket until the server looks, so
//! neither has to run while the other does. A question and a page are small enough to wait there whole.
//!
//! The name server is asked by its address. Programs would find it in resolv.conf(5), which all hosts of a lab have
//! in common with the machine, and a lab changes nothing of the machine.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::host::Host;

/// The name of the page's server.
pub(super) const NAME: &str = "page.lab.example";

/// What every line of the page says.
pub(super) const LINE: &str = "This line is for the one who asked for it, and for nobody else.";

/// How many lines the page has: more than one Ethernet frame holds.
const LINES: usize = 256;

/// Octets of a DNS header.
const HEADER: usize = 12;

/// A question for an IPv4 address: type A, class IN.
const ASKS_FOR_IPV4: [u8; 4] = [0, 1, 0, 1];

/// How long each side may wait for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// A web server and a name server at one address of `host`.
#[derive(Debug)]
pub(super) struct Internet {
    web: TcpListener,
    names: UdpSocket,
    address: Ipv4Addr,
}

impl Internet {
    /// Opens both at `address`, which `host` has.
    pub(super) fn open(host: &Host, address: Ipv4Addr) -> io::Result<Self> {
        let web = host.run(move || TcpListener::bind((address, 80)))?;
        let names = host.run(move || UdpSocket::bind((address, 53)))?;
        web.set_nonblocking(true)?;
        names.set_nonblocking(true)?;
        Ok(Self { web, names, address })
    }

    /// Asks from `host` where the page is.
    pub(super) fn resolve(&self, host: &Host, deadline: Deadline<'_>) -> io::Result<Ipv4Addr> {
        let client = host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        client.set_nonblocking(true)?;
        client.send_to(&question(NAME), (self.address, 53))?;
        let mut buffer = [0; 512];
        let (length, from) = wait(deadline, || self.names.recv_from(&mut buffer))?;
        let asked = buffer.get(..length).unwrap_or_default();
        self.names.send_to(&answer(asked, self.address).ok_or_else(strange)?, from)?;
        let (length, _) = wait(deadline, || client.recv_from(&mut buffer))?;
        read_answer(buffer.get(..length).unwrap_or_default()).ok_or_else(strange)
    }

    /// Fetches the page from `host`: what came, and from where the server was asked.
    pub(super) fn fetch(
        &self,
        host: &Host,
        from: Ipv4Addr,
        deadline: Deadline<'_>,
    ) -> io::Result<(String, IpAddr)> {
        let target = SocketAddr::from((from, 80));
        let mut client = host.run(move || TcpStream::connect_timeout(&target, PATIENCE))?;
        client.set_read_timeout(Some(PATIENCE))?;
        write!(client, "GET / HTTP/1.0\r\nHost: {NAME}\r\n\r\n")?;
        let (connection, peer) = wait(deadline, || self.web.accept())?;
        serve(connection)?;
        let mut response = String::new();
        client.read_to_string(&mut response)?;
        Ok((response, peer.ip()))
    }
}

/// The page.
pub(super) fn page() -> String {
    format!("{LINE}\n").repeat(LINES)
}

/// Whether `response` is the page, whole and right.
pub(super) fn is_page(response: &str) -> bool {
    response
        .split_once("\r\n\r\n")
        .is_some_and(|(head, body)| head.starts_with("HTTP/1.0 200 ") && body == page())
}

fn serve(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 512];
    while !request.ends_with(b"\r\n\r\n") && request.len() < buffer.len() {
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => request.extend(buffer.get(..length).unwrap_or_default()),
        }
    }
    let head = if request.starts_with(b"GET / ") { "200 OK" } else { "404 Not Found" };
    let page = page();
    let length = page.len();
    write!(connection, "HTTP/1.0 {head}\r\nContent-Length: {length}\r\n\r\n{page}")
}

/// What `receive` yields as soon as it does not have to wait.
fn wait<T>(deadline: Deadline<'_>, mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let received = deadline.wait_until(|| match receive() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        result => Some(result),
    });
    received.map_err(io::Error::other)?
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a DNS message that was not expected")
}

/// A question for the IPv4 address of `name` (RFC 1035, section 4.1): recursion desired, one question.
fn question(name: &str) -> Vec<u8> {
    let mut message = b"\xad\x17\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        message.extend(u8::try_from(label.len()).ok());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(ASKS_FOR_IPV4);
    message
}

/// The answer to a question for the page's name: `address`, good for a minute.
fn answer(asked: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    if asked.get(HEADER..) != question(NAME).get(HEADER..) {
        return None;
    }
    let mut message = asked.get(..2)?.to_vec();
    message.extend(b"\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00");
    message.extend(asked.get(HEADER..)?);
    message.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
    message.extend(address.octets());
    Some(message)
}

/// The address in an answer of [`answer`].
fn read_answer(message: &[u8]) -> Option<Ipv4Addr> {
    let asked = question(NAME);
    let answers = message.get(..2) == asked.get(..2)
        && message.get(6..8) == Some(&[0, 1])
        && message.get(HEADER..asked.len()) == asked.get(HEADER..);
    let address = message.get(asked.len() + HEADER..).filter(|_| answers)?;
    <[u8; 4]>::try_from(address).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_form_of_rfc_1035() {
        let head = b"\xad\x17\x01\0\0\x01\0\0\0\0\0\0";
        let name = b"\x04page\x03lab\x07example\0\0\x01\0\x01";
        assert_eq!(question(NAME), [&head[..], name].concat());
    }

    #[test]
    fn the_answer_to_the_question_is_read_and_nothing_else_is() {
        let address = Ipv4Addr::new(198, 51, 100, 3);
        let good = answer(&question(NAME), address).unwrap();
        assert_eq!(read_answer(&good), Some(address));
        assert_eq!(answer(&question("other.example"), address), None);
        assert_eq!(answer(b"", address), None);
        for length in 0..good.len() {
            assert_eq!(read_answer(&good[..length]), None, "{length}");
        }
        assert_eq!(read_answer(&question(NAME)), None);
    }

    #[test]
    fn a_page_is_whole_or_none() {
        let head = "HTTP/1.0 200 OK\r\n\r\n";
        assert!(is_page(&format!("{head}{}", page())));
        assert!(!is_page(&format!("{head}{}", &page()[1..])));
        assert!(!is_page(&format!("HTTP/1.0 404 Not Found\r\n\r\n{}", page())));
        assert!(!is_page(""));
    }
}
