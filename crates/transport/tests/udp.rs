//! Conformance of the UDP transport, on loopback.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "allowed in tests, of which these are the helpers"
)]

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec};
use transport::udp::{
    DATAGRAM_OCTETS, Destination, LocalAddr, Options, Origin, RecvBatch, SEGMENTS, SendBatch,
    UdpSocket,
};

/// How long a test waits for what it has been sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an unprivileged receive buffer holds for certain: datagrams and octets.
const IN_FLIGHT: (usize, usize) = (32, DATAGRAM_OCTETS);

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn bind(ip: impl Into<IpAddr>, options: &Options) -> UdpSocket {
    UdpSocket::bind(SocketAddr::new(ip.into(), 0), options).unwrap()
}

fn options(segmentation: bool, coalescing: bool) -> Options {
    Options { segmentation, coalescing, ..Options::default() }
}

fn to(remote: SocketAddr) -> Destination {
    Destination { remote, local: None }
}

/// A socket with what it received.
struct Receiver {
    socket: UdpSocket,
    batch: RecvBatch,
    waiting: VecDeque<(Origin, Vec<u8>)>,
}

impl Receiver {
    fn new(socket: UdpSocket) -> Self {
        Self { socket, batch: RecvBatch::new(), waiting: VecDeque::new() }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// The next datagram.
    fn next(&mut self) -> (Origin, Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        while self.waiting.is_empty() {
            let rest = deadline.checked_duration_since(Instant::now());
            let rest = Timespec::try_from(rest.expect("nothing arrives")).unwrap();
            let mut wanted = [PollFd::new(&self.socket, PollFlags::IN)];
            rustix::event::poll(&mut wanted, Some(&rest)).unwrap();
            self.receive();
        }
        self.waiting.pop_front().unwrap()
    }

    /// Takes what is there and says how many messages it was.
    fn receive(&mut self) -> usize {
        let received = match self.socket.recv(&mut self.batch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            received => received.unwrap(),
        };
        let (messages, arena) = self.batch.split();
        for message in messages {
            assert!(!message.truncated);
            let datagrams =
                message.datagrams().map(|range| (message.origin, arena[range].to_vec()));
            self.waiting.extend(datagrams);
        }
        received
    }
}

/// Octets that tell one datagram from another.
fn datagram(number: usize, len: usize) -> Vec<u8> {
    let seed = number.wrapping_mul(31) % 251;
    (0..len).map(|index| u8::try_from((seed + index) % 251).unwrap()).collect()
}

fn push(batch: &mut SendBatch, octets: &[u8], destination: &Destination) {
    batch.reserve(octets.len()).unwrap().copy_from_slice(octets);
    batch.commit(octets.len(), destination);
}

fn send(sender: &UdpSocket, batch: &mut SendBatch) {
    let datagrams = batch.datagrams();
    let outcome = sender.send(batch);
    assert_eq!((outcome.sent, outcome.dropped), (datagrams, 0), "{:?}", outcome.error);
    assert!(batch.is_empty() && !outcome.blocked);
}

/// Sends datagrams, each by its length and the receiver that it is for, and expects all of them
/// whole and in order.
fn exchange(sender: &UdpSocket, receivers: &mut [Receiver], datagrams: &[(usize, usize)]) {
    let mut batch = SendBatch::new();
    let mut expected = VecDeque::new();
    for (number, &(len, receiver)) in datagrams.iter().enumerate() {
        if batch.datagrams() == IN_FLIGHT.0 || batch.octets() + len > IN_FLIGHT.1 {
            send(sender, &mut batch);
            expect(receivers, &mut expected);
        }
        push(&mut batch, &datagram(number, len), &to(receivers[receiver].address()));
        expected.push_back((receiver, datagram(number, len)));
    }
    send(sender, &mut batch);
    expect(receivers, &mut expected);
    for receiver in receivers {
        receiver.receive();
        assert!(receiver.waiting.is_empty(), "more arrived than was sent");
    }
}

fn expect(receivers: &mut [Receiver], expected: &mut VecDeque<(usize, Vec<u8>)>) {
    for (receiver, octets) in expected.drain(..) {
        let (_, received) = receivers[receiver].next();
        assert_eq!(received.len(), octets.len());
        assert!(received == octets, "a datagram of {} octets differs", octets.len());
    }
}

#[test]
fn datagrams_of_every_size_arrive_whole_and_in_order() {
    let sizes: Vec<_> = (0..=1472).chain([9000, 65_507]).map(|size| (size, 0)).collect();
    for ip in LOOPBACKS {
        let sender = bind(ip, &Options::default());
        exchange(&sender, &mut [Receiver::new(bind(ip, &Options::default()))], &sizes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn with_and_without_offload_the_same_datagrams_arrive(
        datagrams in prop::collection::vec(
            (
                prop_oneof![
                    4 => prop::sample::select(&[92, 1280, 1472][..]),
                    2 => 0..=1472_usize,
                    1 => prop::sample::select(&[0, 9000, 65_507][..]),
                ],
                0..2_usize,
            ),
            1..100,
        ),
        runs in prop::collection::vec(1..12_usize, 100),
    ) {
        let datagrams: Vec<_> =
            datagrams.iter().zip(runs).flat_map(|(&one, run)| vec![one; run]).take(200).collect();
        for ip in LOOPBACKS {
            for (segmentation, coalescing) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let options = options(segmentation, coalescing);
                let mut receivers = [(); 2].map(|()| Receiver::new(bind(ip, &options)));
                exchange(&bind(ip, &options), &mut receivers, &datagrams);
            }
        }
    }
}

#[test]
fn datagrams_of_one_size_travel_as_one_message() {
    for ip in LOOPBACKS {
        let sender = bind(ip, &Options::default());
        let mut receiver = Receiver::new(bind(ip, &Options::default()));
        if !(sender.segmentation() && receiver.socket.coalescing()) {
            eprintln!("skipped: this kernel has no UDP segmentation or coalescing");
            return;
        }
        let mut batch = SendBatch::new();
        for number in 0..45 {
            push(&mut batch, &datagram(number, 1280), &to(receiver.address()));
        }
        push(&mut batch, &datagram(45, 7), &to(receiver.address()));
        send(&sender, &mut batch);
        assert_eq!(receiver.receive(), 1);
        let message = receiver.batch.messages().next().unwrap();
        assert_eq!((message.range, message.segment_size), (0..45 * 1280 + 7, 1280));
        assert_eq!(receiver.waiting.len(), 46);
    }
}

#[test]
fn the_most_segments_arrive_in_order() {
    let sender = bind(Ipv4Addr::LOCALHOST, &Options::default());
    let mut receiver = Receiver::new(bind(Ipv4Addr::LOCALHOST, &Options::default()));
    let mut batch = SendBatch::new();
    for number in 0..SEGMENTS {
        push(&mut batch, &datagram(number, 92), &to(receiver.address()));
    }
    send(&sender, &mut batch);
    for number in 0..SEGMENTS {
        assert_eq!(receiver.next().1, datagram(number, 92));
    }
}

#[test]
fn a_reply_leaves_from_the_address_that_was_addressed() {
    let mut server = Receiver::new(bind(Ipv4Addr::UNSPECIFIED, &Options::default()));
    let mut client = Receiver::new(bind(Ipv4Addr::LOCALHOST, &Options::default()));
    let addressed = SocketAddr::from(([127, 0, 0, 2], server.address().port()));
    let mut batch = SendBatch::new();
    for reply in [&b"one"[..], b"two"] {
        push(&mut batch, b"request", &to(addressed));
        send(&client.socket, &mut batch);
        let (origin, _) = server.next();
        assert_eq!(origin.remote, client.address());
        assert_eq!(origin.local, Some(LocalAddr { ip: addressed.ip(), interface: 0 }));
        push(&mut batch, reply, &Destination::from(origin));
        push(&mut batch, reply, &Destination::from(origin));
        send(&server.socket, &mut batch);
        for _ in 0..2 {
            let (origin, octets) = client.next();
            assert_eq!((origin.remote, &octets[..]), (addressed, reply));
        }
    }
}

#[test]
fn an_ipv6_reply_leaves_from_the_address_that_was_addressed() {
    let mut server = Receiver::new(bind(Ipv6Addr::UNSPECIFIED, &Options::default()));
    let mut client = Receiver::new(bind(Ipv6Addr::LOCALHOST, &Options::default()));
    let addressed = SocketAddr::from((Ipv6Addr::LOCALHOST, server.address().port()));
    let mut batch = SendBatch::new();
    push(&mut batch, b"request", &to(addressed));
    send(&client.socket, &mut batch);
    let (origin, _) = server.next();
    assert_eq!(origin.remote, client.address());
    assert_eq!(origin.local, Some(LocalAddr { ip: addressed.ip(), interface: 0 }));
    push(&mut batch, b"reply", &Destination::from(origin));
    send(&server.socket, &mut batch);
    assert_eq!(client.next().0.remote, addressed);
}

#[test]
fn a_datagram_whose_source_address_is_gone_leaves_from_another() {
    let gone = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for ((ip, gone), everywhere) in LOOPBACKS.into_iter().zip(gone).zip(everywhere) {
        let sender = bind(everywhere, &Options::default());
        let mut receiver = Receiver::new(bind(ip, &Options::default()));
        let local = Some(LocalAddr { ip: gone, interface: 0 });
        let mut batch = SendBatch::new();
        for number in 0..100 {
            push(
                &mut batch,
                &datagram(number, 92),
                &Destination { local, ..to(receiver.address()) },
            );
        }
        send(&sender, &mut batch);
        for number in 0..100 {
            let (origin, octets) = receiver.next();
            assert_eq!(octets, datagram(number, 92));
            assert_eq!(origin.remote, SocketAddr::new(ip, sender.local_addr().port()));
        }
    }
}

#[test]
fn a_socket_of_one_address_sends_from_that_whatever_is_asked() {
    let sender = bind([127, 0, 0, 3], &Options::default());
    let mut receiver = Receiver::new(bind(Ipv4Addr::LOCALHOST, &Options::default()));
    let local = Some(LocalAddr { ip: [127, 0, 0, 4].into(), interface: 0 });
    let mut batch = SendBatch::new();
    push(&mut batch, b"x", &Destination { local, ..to(receiver.address()) });
    send(&sender, &mut batch);
    assert_eq!(receiver.next().0.remote, sender.local_addr());
}

#[test]
fn a_full_receive_buffer_loses_the_rest_and_recovers() {
    let sender = bind(Ipv4Addr::LOCALHOST, &Options::default());
    let small = Options { receive_buffer: 16 * 1024, ..Options::default() };
    let mut receiver = Receiver::new(bind(Ipv4Addr::LOCALHOST, &small));
    let mut batch = SendBatch::new();
    for number in 0..200 {
        push(&mut batch, &datagram(number, 1000 + number % 2), &to(receiver.address()));
    }
    send(&sender, &mut batch);
    while receiver.receive() > 0 {}
    let arrived = receiver.waiting.len();
    assert!((1..200).contains(&arrived), "{arrived} of 200 arrived");
    for (number, (_, octets)) in receiver.waiting.drain(..).enumerate() {
        assert_eq!(octets, datagram(number, 1000 + number % 2));
    }
    push(&mut batch, b"afterwards", &to(receiver.address()));
    send(&sender, &mut batch);
    assert_eq!(receiver.next().1, b"afterwards");
}

#[test]
fn an_unreachable_destination_is_a_counted_drop_between_others() {
    let sender = bind(Ipv4Addr::LOCALHOST, &Options::default());
    let mut receiver = Receiver::new(bind(Ipv4Addr::LOCALHOST, &Options::default()));
    let other_family = to(SocketAddr::from((Ipv6Addr::LOCALHOST, 9)));
    let mut batch = SendBatch::new();
    push(&mut batch, b"first", &to(receiver.address()));
    push(&mut batch, b"lost", &other_family);
    push(&mut batch, b"lost", &other_family);
    push(&mut batch, b"last", &to(receiver.address()));
    let outcome = sender.send(&mut batch);
    assert_eq!((outcome.sent, outcome.dropped, outcome.blocked), (2, 2, false));
    assert!(outcome.error.is_some());
    assert_eq!(receiver.next().1, b"first");
    assert_eq!(receiver.next().1, b"last");
}

#[test]
fn nobody_listening_is_no_error() {
    let sender = bind(Ipv4Addr::LOCALHOST, &Options::default());
    let nobody = SocketAddr::from(([127, 0, 0, 5], 1));
    let mut batch = SendBatch::new();
    for _ in 0..3 {
        push(&mut batch, b"anyone?", &to(nobody));
        send(&sender, &mut batch);
    }
}

#[test]
fn an_empty_socket_would_block() {
    let socket = bind(Ipv4Addr::LOCALHOST, &Options::default());
    let error = socket.recv(&mut RecvBatch::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn both_families_share_a_port() {
    // Another test may hold the IPv6 port that belongs to an IPv4 one: three attempts.
    let pair = (0..3).find_map(|_| {
        let v4 = bind(Ipv4Addr::UNSPECIFIED, &Options::default());
        let port = v4.local_addr().port();
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        Some((v4, UdpSocket::bind(v6, &Options::default()).ok()?))
    });
    let (v4, v6) = pair.expect("IPv6 sockets are for IPv6 only");
    assert_eq!(v4.local_addr().port(), v6.local_addr().port());
}

#[test]
fn a_port_in_use_is_named() {
    let holder = bind(Ipv4Addr::LOCALHOST, &Options::default());
    let taken = holder.local_addr();
    let error = UdpSocket::bind(taken, &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("bind UDP socket to {taken}"));
    let source = error.source().unwrap().to_string();
    assert_eq!(source, "Address already in use (os error 98)");
}

/// Set in the process that [`datagrams_larger_than_the_path_are_fragmented`] starts.
const IN_NAMESPACE: &str = "ADIT_TEST_IN_NAMESPACE";

/// ```text
///   namespace of its own
///   sender ── lo, MTU 1280 ── receiver
/// ```
#[test]
fn datagrams_larger_than_the_path_are_fragmented() {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        return in_namespace("datagrams_larger_than_the_path_are_fragmented");
    }
    for ip in LOOPBACKS {
        let sender = bind(ip, &Options::default());
        let mut receivers = [(); 2].map(|()| Receiver::new(bind(ip, &Options::default())));
        let datagrams: Vec<_> = [1000, 1500, 1500, 1500, 9000, 9000, 1000, 1000]
            .into_iter()
            .flat_map(|len| [(len, 0), (len, 0), (len, 1)])
            .collect();
        exchange(&sender, &mut receivers, &datagrams);
        assert_eq!(sender.segmentation(), bind(ip, &Options::default()).segmentation());
    }
}

/// Runs a test of this file in a network namespace where the MTU of loopback is 1280.
fn in_namespace(test: &str) {
    let script = "ip link set lo mtu 1280 up || exit 77; exec \"$0\" --exact \"$1\" --nocapture";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(IN_NAMESPACE, "1")
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(report.contains("1 passed"), "{report}");
        }
        Ok(output) if output.stdout.is_empty() => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no namespace: {why}");
            eprintln!("skipped, no namespace: {why}");
        }
        Ok(output) => panic!("in a namespace: {}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "run unshare: {error}");
            eprintln!("skipped, cannot run unshare: {error}");
        }
    }
}
