//! Numbered datagrams from one host to another, one every millisecond: which arrived, and when.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::Host;

use super::{soon, udp};

/// The time from one datagram to the next.
const BEAT: Duration = Duration::from_millis(1);

/// How long the receiver listens before it looks whether it is over.
const TURN: Duration = Duration::from_millis(20);

/// How long after the last datagram was sent one may arrive that is still counted.
const TAIL: Duration = Duration::from_millis(500);

/// Both ends.
#[derive(Debug)]
pub(crate) struct Numbered {
    over: mpsc::Sender<()>,
    sent: Arc<AtomicU64>,
    arrived: Arc<Mutex<Vec<u64>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
}

impl Numbered {
    /// Sends from one host to `address` of another, whether it has it all the time or not.
    pub(crate) fn start(from: &Host, to: &Host, address: IpAddr) -> Self {
        let any = |address: IpAddr| {
            SocketAddr::new(if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0)
        };
        let receiver = udp::bind(to, any(address));
        receiver.set_read_timeout(Some(TURN)).unwrap();
        let target = SocketAddr::new(address, receiver.local_addr().unwrap().port());
        let sender = udp::bind(from, any(address));
        let (over, is_over) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let (sent, arrived) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<u64>>>::default());
        let send = {
            let sent = Arc::clone(&sent);
            move || {
                send(&sender, target, &sent, &is_over);
                let _ = ended.send(());
            }
        };
        let receive = {
            let arrived = Arc::clone(&arrived);
            move || receive(&receiver, &arrived, &has_ended)
        };
        let threads = vec![thread::spawn(send), thread::spawn(receive)];
        Self { over, sent, arrived, threads }
    }

    /// Waits until one arrives that is sent from here on; how long that takes.
    pub(crate) fn wait_for_news(&self) -> Duration {
        let (start, mark) = (Instant::now(), self.sent.load(Ordering::Relaxed));
        let newest = || self.arrived.lock().unwrap().last().is_some_and(|newest| *newest > mark);
        soon().wait_until(|| newest().then_some(())).unwrap();
        start.elapsed()
    }

    /// Ends it. Fails if one has arrived twice.
    pub(crate) fn finish(self) -> Tally {
        drop(self.over);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let arrived = self.arrived.lock().unwrap();
        let different: BTreeSet<_> = arrived.iter().collect();
        assert_eq!(different.len(), arrived.len(), "some of {arrived:?} arrived twice");
        Tally { sent: self.sent.load(Ordering::Relaxed), arrived: arrived.len() as u64 }
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, sent: &AtomicU64, over: &mpsc::Receiver<()>) {
    while over.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let number = sent.fetch_add(1, Ordering::Relaxed) + 1;
        // Refused while there is no device.
        let _ = socket.send_to(&number.to_be_bytes(), target);
    }
}

fn receive(socket: &UdpSocket, arrived: &Mutex<Vec<u64>>, ended: &mpsc::Receiver<()>) {
    let mut until = None;
    let mut number = [0; 8];
    while until.is_none_or(|until| Instant::now() < until) {
        if socket.recv(&mut number).is_ok_and(|count| count == number.len()) {
            arrived.lock().unwrap().push(u64::from_be_bytes(number));
        }
        if until.is_none() && ended.try_recv() != Err(mpsc::TryRecvError::Empty) {
            until = Some(Instant::now() + TAIL);
        }
    }
}
