//! A server of the domain name system that knows one name (RFC 1035, section 4).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::Host;

use super::udp;

/// How long the server listens before it looks whether it is over.
const TURN: Duration = Duration::from_millis(50);

/// Octets of a question before its name.
const HEADER: usize = 12;

/// Tells every question for IPv4 addresses the same, whatever the name, until it is dropped.
#[derive(Debug)]
pub(crate) struct NameServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    /// The addresses, and for how many seconds they are good.
    told: Mutex<(Vec<Ipv4Addr>, u32)>,
    asked: AtomicUsize,
    over: AtomicBool,
}

impl NameServer {
    /// Serves `address`, which `host` has.
    pub(crate) fn serve(host: &Host, address: Ipv4Addr, told: &[Ipv4Addr], life: u32) -> Self {
        let socket = udp::bind(host, SocketAddr::new(address.into(), 53));
        socket.set_read_timeout(Some(TURN)).unwrap();
        let shared = Arc::new(Shared {
            socket,
            told: Mutex::new((told.to_vec(), life)),
            asked: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.answer_all()
        });
        Self { shared, thread: Some(thread) }
    }

    /// From here on the name leads there.
    pub(crate) fn tell(&self, told: &[Ipv4Addr], life: u32) {
        *self.shared.told.lock().unwrap() = (told.to_vec(), life);
    }

    /// How many questions it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn answer_all(&self) {
        let mut question = [0; 512];
        while !self.over.load(Ordering::Relaxed) {
            let Ok((count, from)) = self.socket.recv_from(&mut question) else { continue };
            self.asked.fetch_add(1, Ordering::Relaxed);
            let (told, life) = self.told.lock().unwrap().clone();
            let _ = self.socket.send_to(&answer(&question[..count], &told, life), from);
        }
    }
}

/// The question, and behind it what it asks for.
fn answer(question: &[u8], told: &[Ipv4Addr], life: u32) -> Vec<u8> {
    let name = question[HEADER..].iter().position(|&octet| octet == 0).unwrap();
    let end = HEADER + name + 5;
    let is_a = question[HEADER + name + 1..end] == [0, 1, 0, 1];
    let told = if is_a { told } else { &[] };
    // An answer, recursion was wanted and is available; one question.
    let mut answer = [&question[..2], b"\x81\x80\x00\x01\x00"].concat();
    answer.push(u8::try_from(told.len()).unwrap());
    answer.extend([0; 4]);
    answer.extend(&question[HEADER..end]);
    for address in told {
        answer.extend(b"\xc0\x0c\x00\x01\x00\x01");
        answer.extend(life.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    answer
}
