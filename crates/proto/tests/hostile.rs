//! What others do who can send anything, change anything and record everything: nothing of it is delivered or answered,
//! all of it is counted, and the session goes on.

mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use allocation_counter::measure;
use proto::cookie::Stamper;
use proto::path::{Path, TransportIndex};
use proto::peer::PeerIndex;
use proto::tunnel::PeerConfig;
use proto::{DropReason, PublicKey};
use simnet::{Conditions, Random};
use wire::message::{COOKIE_REPLY_LEN, Cipher, CookieReply, INITIATION_LEN, Kind, RESPONSE_LEN};
use world::{Heard, Options, World, millis, secs};

/// The octets of an initiation, response or any message that are read whoever sends it. Behind them is mac2,
/// which is only read under load.
const INITIATION_READ: Range<usize> = 0..132;
const RESPONSE_READ: Range<usize> = 0..76;

/// The octets of an initiation and a response that the handshake authenticates. Whoever knows the receiver's public key
/// can make both macs, but the sender's index before these is bound by nothing else.
const INITIATION_BOUND: Range<usize> = 8..116;
const RESPONSE_BOUND: Range<usize> = 8..60;

/// Messages of a flood.
const FLOOD: u32 = 100_000;

/// What a flood may leave in memory: less than a tenth of an octet a message. Queues and tables may have grown a little.
const LITTLE: i64 = 8 << 10;

/// What the table of sources with a cookie may have: 8192 with some hundred octets each.
const LIMITER: i64 = 8192 * 200;

/// What a host has dropped so far, on both its paths.
fn dropped(world: &World, host: usize) -> u64 {
    let host = &world.hosts[host];
    host.dropped.len() as u64 + host.tunnel.drops().iter().sum::<u64>()
}

fn drops(world: &World, host: usize, reason: DropReason) -> u64 {
    world.hosts[host].tunnel.drops()[reason.index()]
}

/// The last message of a kind that `host` sent.
fn last(world: &World, host: usize, kind: Kind) -> Vec<u8> {
    let mut heard = world.tap.heard.iter().rev();
    let last = heard.find(|heard| heard.from == host && heard.kind == kind);
    last.expect("it has sent one").datagram.clone()
}

/// What must not change by what is hostile: where the peers are, when keys were made, what came in.
fn standing(world: &World, host: usize) -> impl PartialEq + std::fmt::Debug + use<> {
    let host = &world.hosts[host];
    let statuses = host.tunnel.statuses(host.instant(world.now)).into_iter();
    let peers = statuses.map(|peer| (peer.path, peer.last_handshake, peer.cipher, peer.traffic));
    let counters = host.tunnel.counters();
    let made = (counters.established, counters.responses_sent, counters.cookie_replies_sent);
    (peers.collect::<Vec<_>>(), made, host.last_received, host.events.len())
}

/// Every message that differs from `message` in one bit of the `octets`.
fn flipped(message: &[u8], octets: Range<usize>) -> impl Iterator<Item = Vec<u8>> {
    octets.flat_map(move |octet| {
        (0..8).map(move |bit| {
            let mut flipped = message.to_vec();
            flipped[octet] ^= 1 << bit;
            flipped
        })
    })
}

/// Fails unless `host` drops each of the messages, and does nothing else.
fn assert_dropped(world: &mut World, host: usize, messages: impl Iterator<Item = Vec<u8>>) {
    let from = world.hosts[1 - host].address();
    let (before, sent) = (standing(world, host), world.tap.heard.len());
    for message in messages {
        let count = dropped(world, host);
        world.inject(host, from, &message);
        assert_eq!(dropped(world, host), count + 1, "{message:02x?}");
    }
    assert_eq!(world.tap.heard.len(), sent, "something was answered");
    assert_eq!(standing(world, host), before);
}

/// The same with macs that are right, which everybody can make.
fn stamped(
    to: PublicKey,
    messages: impl Iterator<Item = Vec<u8>>,
) -> impl Iterator<Item = Vec<u8>> {
    let mut stamper = Stamper::new(&to);
    messages.map(move |mut message| {
        stamper.stamp(proto::Instant::ZERO, &mut message);
        message
    })
}

/// From here on nothing that `host` sends arrives.
fn cut(world: &mut World, host: usize) {
    let (here, there) = (world.hosts[host].address(), world.hosts[1 - host].address());
    world.network.cut(here, there);
}

/// Lets what was cut off arrive after all, and the session go on.
fn assert_goes_on(world: &mut World, from: usize, message: &[u8]) {
    world.network.mend();
    let address = world.hosts[from].address();
    world.inject(1 - from, address, message);
    world.run_for(millis(100));
    world.exchange(0, 1);
    world.exchange(1, 0);
    assert_eq!(world.hosts[0].tunnel.counters().established, 1, "no other handshake was needed");
}

#[test]
fn no_bit_of_an_initiation_can_be_flipped() {
    let mut world = World::pair();
    cut(&mut world, 0);
    world.send(0, 1);
    let initiation = last(&world, 0, Kind::Initiation);
    assert_dropped(&mut world, 1, flipped(&initiation, INITIATION_READ));
    let key = world.hosts[1].public_key;
    assert_dropped(&mut world, 1, stamped(key, flipped(&initiation, INITIATION_BOUND)));
    assert!(drops(&world, 1, DropReason::NotAMessage) >= 32);
    assert!(drops(&world, 1, DropReason::BadMac) >= 8 * 128);
    assert!(drops(&world, 1, DropReason::Undecryptable) >= 8 * 100);
    assert_goes_on(&mut world, 0, &initiation);
}

#[test]
fn no_bit_of_a_response_can_be_flipped() {
    let mut world = World::pair();
    cut(&mut world, 1);
    world.send(0, 1);
    world.run_for(millis(50));
    let response = last(&world, 1, Kind::Response);
    assert_dropped(&mut world, 0, flipped(&response, RESPONSE_READ));
    let key = world.hosts[0].public_key;
    assert_dropped(&mut world, 0, stamped(key, flipped(&response, RESPONSE_BOUND)));
    assert!(drops(&world, 0, DropReason::UnknownReceiver) >= 32);
    assert!(drops(&world, 0, DropReason::Undecryptable) >= 8 * 48);
    assert_goes_on(&mut world, 1, &response);
}

#[test]
fn under_load_no_bit_of_mac2_can_be_flipped() {
    let mut world = World::pair();
    world.hosts[1].under_load = true;
    world.send(0, 1);
    world.run_for(millis(100));
    cut(&mut world, 0);
    world.run_for(secs(6));
    let initiation = last(&world, 0, Kind::Initiation);
    assert_ne!(initiation[INITIATION_READ.end..], [0; 16], "it has a cookie");
    let (start, from) = (world.now, world.hosts[0].address());
    let wrong: Vec<_> = flipped(&initiation, INITIATION_READ.end..INITIATION_LEN).collect();
    for message in &wrong {
        world.inject(1, from, message);
    }
    // What proves no address earns a cookie, and nothing else.
    let answers = world.sent_since(1, start);
    assert_eq!(answers.len(), wrong.len());
    assert!(answers.iter().all(|answer| answer.datagram.len() == COOKIE_REPLY_LEN));
    world.network.mend();
    world.inject(1, from, &initiation);
    assert_eq!(world.times(1, start, Kind::Response).len(), 1);
}

#[test]
fn no_bit_of_a_cookie_reply_can_be_flipped() {
    let mut world = World::pair();
    world.hosts[1].under_load = true;
    cut(&mut world, 1);
    world.send(0, 1);
    world.run_for(millis(50));
    let reply = last(&world, 1, Kind::CookieReply);
    assert_dropped(&mut world, 0, flipped(&reply, 0..COOKIE_REPLY_LEN));
    assert_eq!(world.hosts[0].tunnel.counters().cookie_replies_received, 0);
    world.run_for(millis(50));
    world.network.mend();
    let from = world.hosts[1].address();
    world.inject(0, from, &reply);
    assert_eq!(world.hosts[0].tunnel.counters().cookie_replies_received, 1);
    world.run_for(secs(6));
    world.exchange(0, 1);
}

/// Flips the bits of a keepalive, control frames and a packet on their way, for each cipher.
fn assert_no_bit_of_data_can_be_flipped(options: Options, cipher: Cipher) {
    let mut world = World::pair_of(options, options);
    world.exchange(0, 1);
    world.exchange(1, 0);
    let arrived: Vec<_> = world.tap.heard.iter().filter(|heard| heard.kind == Kind::Data).collect();
    let arrived: Vec<_> =
        arrived.iter().map(|heard| (heard.from, heard.datagram.clone())).collect();
    for (from, message) in arrived {
        assert_dropped(&mut world, 1 - from, flipped(&message, 0..message.len()));
    }
    for from in [0, 1] {
        cut(&mut world, from);
        let number = world.send(from, 1 - from);
        let message = last(&world, from, Kind::Data);
        assert_eq!(
            Heard::cipher(world.tap.heard.last().expect("something was heard")),
            Some(cipher)
        );
        assert_dropped(&mut world, 1 - from, flipped(&message, 0..message.len()));
        // Not even a counter that was beyond all others has had a consequence.
        assert_goes_on(&mut world, from, &message);
        assert!(world.has_arrived(1 - from, number));
    }
}

#[test]
fn no_bit_of_a_message_sealed_with_chacha20_poly1305_can_be_flipped() {
    assert_no_bit_of_data_can_be_flipped(Options::stock(), Cipher::ChaCha20Poly1305);
}

#[test]
fn no_bit_of_a_message_sealed_with_aes_256_gcm_can_be_flipped() {
    assert_no_bit_of_data_can_be_flipped(Options::default(), Cipher::Aes256Gcm);
}

/// A conversation of many keypairs, all of whose messages arrived.
fn conversation(options: Options) -> World {
    let mut world = World::pair_of(options, options);
    for _ in 0..150 {
        world.exchange(0, 1);
        world.exchange(1, 0);
        world.run_for(secs(3));
    }
    assert!(world.hosts[0].tunnel.counters().established >= 3);
    world
}

/// Sends all that was heard to both hosts again, from where it came from and from elsewhere.
fn replay(world: &mut World, messages: &[Heard]) {
    let elsewhere = "203.0.113.1:1".parse().expect("an address");
    for message in messages {
        let from = world.hosts[message.from].address();
        for (host, from) in [(0, from), (1, from), (0, elsewhere), (1, elsewhere)] {
            // A host hears no message of its own address.
            if world.hosts[host].address() != from {
                world.inject(host, from, &message.datagram);
            }
        }
    }
}

fn shuffled(mut messages: Vec<Heard>) -> Vec<Heard> {
    let mut random = Random::new(12);
    for place in (1..messages.len()).rev() {
        let other = usize::try_from(random.within(0..place as u64 + 1)).expect("a place");
        messages.swap(place, other);
    }
    messages
}

#[test]
fn a_conversation_that_is_sent_again_means_nothing() {
    for options in [Options::default(), Options::stock()] {
        let mut world = conversation(options);
        let messages = world.tap.heard.clone();
        let before = [0, 1].map(|host| (standing(&world, host), dropped(&world, host)));
        for messages in [messages.clone(), shuffled(messages.clone())] {
            replay(&mut world, &messages);
        }
        assert_eq!(world.tap.heard.len(), messages.len(), "something was answered");
        for (host, (standing_before, dropped_before)) in before.into_iter().enumerate() {
            assert_eq!(standing(&world, host), standing_before);
            // From two places those of the other side, and from one its own.
            let is_own = |heard: &&Heard| heard.from == host;
            let own = messages.iter().filter(is_own).count() as u64;
            let others = messages.len() as u64 - own;
            assert_eq!(dropped(&world, host), dropped_before + 2 * (own + 2 * others));
            assert!(world.hosts[host].dropped.contains(&DropReason::Replayed));
            assert!(world.hosts[host].dropped.contains(&DropReason::UnknownReceiver));
        }
        let made = world.hosts[0].tunnel.counters().established;
        world.exchange(0, 1);
        world.exchange(1, 0);
        assert!(world.hosts[0].tunnel.counters().established <= made + 1);
    }
}

#[test]
fn after_a_restart_a_conversation_that_is_sent_again_earns_one_response() {
    let mut world = conversation(Options::default());
    let messages = world.tap.heard.clone();
    let now = world.now;
    world.hosts[1].restart(now);
    world.connect(1);
    let start = world.now;
    let from = world.hosts[0].address();
    for message in messages.iter().filter(|message| message.from == 0) {
        world.inject(1, from, &message.datagram);
    }
    let answers = world.sent_since(1, start);
    assert_eq!(answers.iter().map(|answer| answer.kind).collect::<Vec<_>>(), [Kind::Response]);
    assert!(answers[0].datagram.len() == RESPONSE_LEN && RESPONSE_LEN < INITIATION_LEN);
    world.run_for(secs(1));
    assert_eq!(world.hosts[1].tunnel.counters().established, 0, "nobody can confirm it");
    let number = world.send(1, 0);
    world.run_for(secs(6));
    assert!(world.has_arrived(0, number));
    world.exchange(0, 1);
}

/// Rubbish of the length and type of an initiation.
fn rubbish(random: &mut Random) -> [u8; INITIATION_LEN] {
    let mut message = [0; INITIATION_LEN];
    random.fill(&mut message);
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    message
}

/// An address of which there are as many as there are messages in a flood.
fn stranger(number: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a80_0000 + number), 4740).into()
}

fn path(remote: SocketAddr) -> Path {
    Path { transport: TransportIndex(0), remote: remote.into(), local: None }
}

/// Floods host 1 with what `make` makes of rubbish; the answers, the question for each of which is longer, and octets that
/// stay in memory.
fn flood(
    world: &mut World,
    mut make: impl FnMut(&mut [u8; INITIATION_LEN]),
    mut answered: impl FnMut(SocketAddr, &[u8]),
) -> i64 {
    let mut random = world.random.fork();
    let (now, host) = (world.now, &mut world.hosts[1]);
    let under_load = host.under_load;
    measure(|| {
        for number in 0..FLOOD {
            let mut message = rubbish(&mut random);
            make(&mut message);
            let from = path(stranger(number));
            host.with_tunnel(now, |tunnel, ctx| {
                tunnel.handle_handshake(ctx, &from, &message, under_load);
            });
            for answer in host.drain(now) {
                assert_eq!(answer.path, from);
                assert!(answer.datagram.len() < message.len());
                answered(
                    answer.path.remote.socket_addr().expect("a wire is one of UDP"),
                    &answer.datagram,
                );
            }
        }
    })
    .bytes_current
}

fn no_answer(_: SocketAddr, answer: &[u8]) {
    panic!("a stranger was answered: {answer:02x?}");
}

#[test]
fn a_flood_with_wrong_macs_is_only_counted() {
    for under_load in [false, true] {
        let mut world = World::pair();
        world.exchange(0, 1);
        world.hosts[1].under_load = under_load;
        let left = flood(&mut world, |_| {}, no_answer);
        assert!(left < LITTLE, "{left} octets");
        assert_eq!(world.hosts[1].tunnel.counters().bad_mac1, u64::from(FLOOD));
        world.exchange(1, 0);
    }
}

#[test]
fn a_flood_of_strangers_who_know_the_public_key_is_only_counted() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let mut stamper = Stamper::new(&world.hosts[1].public_key);
    let left = flood(&mut world, |message| stamper.stamp(proto::Instant::ZERO, message), no_answer);
    assert!(left < LITTLE, "{left} octets");
    assert_eq!(drops(&world, 1, DropReason::Undecryptable), u64::from(FLOOD));
    world.exchange(1, 0);
}

#[test]
fn under_load_a_flood_from_everywhere_earns_cookies_only() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.hosts[1].under_load = true;
    let mut stamper = Stamper::new(&world.hosts[1].public_key);
    let mut cookies = 0;
    let left = flood(
        &mut world,
        |message| stamper.stamp(proto::Instant::ZERO, message),
        |_, answer| {
            assert_eq!((answer[0], answer.len()), (3, COOKIE_REPLY_LEN));
            cookies += 1;
        },
    );
    assert!(left < LITTLE, "{left} octets");
    assert_eq!(cookies, FLOOD);
    assert_eq!(world.hosts[1].tunnel.counters().cookie_replies_sent, u64::from(FLOOD));
    world.exchange(1, 0);
}

#[test]
fn a_flood_of_strangers_with_cookies_fills_a_table_of_limited_size() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.hosts[1].under_load = true;
    let (now, key) = (world.now, world.hosts[1].public_key);
    let mut random = world.random.fork();
    let host = &mut world.hosts[1];
    let here = host.instant(now);
    // Fewer than in other floods, but more than the table holds: here everyone says something twice.
    let strangers = 3 * u32::try_from(proto::ratelimit::MAX_SOURCES).unwrap();
    let left = measure(|| {
        for number in 0..strangers {
            let (from, mut stamper) = (path(stranger(number)), Stamper::new(&key));
            for has_cookie in [false, true] {
                let mut message = rubbish(&mut random);
                stamper.stamp(here, &mut message);
                host.with_tunnel(now, |tunnel, ctx| {
                    tunnel.handle_handshake(ctx, &from, &message, true);
                });
                let answers = host.drain(now);
                assert_eq!(answers.len(), usize::from(!has_cookie));
                for answer in answers {
                    let reply = CookieReply::parse(&answer.datagram).unwrap();
                    assert!(stamper.handle_reply(here, &reply));
                }
            }
        }
    })
    .bytes_current;
    assert!(left < LIMITER, "{left} octets");
    let heard = drops(&world, 1, DropReason::Undecryptable);
    assert_eq!(heard, proto::ratelimit::MAX_SOURCES as u64);
    assert_eq!(drops(&world, 1, DropReason::RateLimited), u64::from(strangers) - heard);
    // A second later there is room again, for the peer, too.
    world.run_for(secs(200));
    world.send(0, 1);
    world.run_for(secs(7));
    world.exchange(0, 1);
}

#[test]
fn answers_that_nobody_takes_are_dropped_beyond_some_thousands() {
    let mut world = World::pair();
    world.hosts[1].under_load = true;
    let now = world.now;
    let mut stamper = Stamper::new(&world.hosts[1].public_key);
    let mut random = world.random.fork();
    for number in 0..FLOOD / 10 {
        let mut message = rubbish(&mut random);
        stamper.stamp(proto::Instant::ZERO, &mut message);
        world.hosts[1].with_tunnel(now, |tunnel, ctx| {
            tunnel.handle_handshake(ctx, &path(stranger(number)), &message, true);
        });
    }
    let answers = world.hosts[1].drain(now).len();
    assert_eq!(answers, 4096);
    let refused = drops(&world, 1, DropReason::SendFailed);
    assert_eq!(refused + answers as u64, u64::from(FLOOD / 10));
}

#[test]
fn who_takes_somebody_else_for_the_peer_is_not_answered() {
    let mut world = World::pair();
    let other = world.hosts[0].public_key;
    // Host 0 believes that host 1 has the key of a third, and does everything else right.
    let mut key = *other.as_bytes();
    key[0] ^= 0x40;
    let wrong = PeerConfig { public_key: key.into(), ..world.config(0, 1) };
    world.set_peers(0, vec![wrong]);
    let start = world.now;
    let number = world.send(0, 1);
    world.run_for(secs(30));
    assert!(world.sent_since(1, start).is_empty() && !world.has_arrived(1, number));
    assert!(world.hosts[1].tunnel.counters().bad_mac1 >= 5);
}

#[test]
fn a_peer_cannot_send_from_the_addresses_of_others() {
    let mut world = World::new(11, Conditions::GOOD);
    for _ in 0..3 {
        world.add(Options::default());
    }
    world.connect_all();
    // A prefix that contains that of host 2 gives no right to what is in it.
    let wide =
        PeerConfig { allowed_ips: vec!["10.0.0.0/24".parse().unwrap()], ..world.config(0, 1) };
    let peers = vec![wide, world.config(0, 2)];
    world.set_peers(0, peers);
    world.exchange(1, 0);
    world.exchange(2, 0);
    let forged = world.send_as(1, 2, 0);
    world.run_for(secs(1));
    assert!(!world.has_arrived(0, forged));
    assert_eq!(world.hosts[0].dropped, [DropReason::SourceNotAllowed]);
    // Who owns less cannot send from what is around it either.
    let forged = world.send_as(2, 1, 0);
    world.run_for(secs(1));
    assert!(!world.has_arrived(0, forged));
    assert_eq!(world.hosts[0].dropped, [DropReason::SourceNotAllowed; 2]);
    assert!(world.tap.heard.iter().all(|heard| heard.to.is_some()));
    world.exchange(0, 2);
}

#[test]
fn datagrams_of_every_length_are_only_counted() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.exchange(1, 0);
    let data = last(&world, 0, Kind::Data);
    let lengths = (0..400).chain([1420, 1452, 1472, 1500, 9000, 65_507, 65_535]);
    let mut random = Random::new(13);
    let messages = lengths.flat_map(|len| {
        let mut rubbish = vec![0; len];
        random.fill(&mut rubbish);
        // With each type, and with a header of the session before it.
        let typed = (0..=5).map(|kind| {
            let mut typed = rubbish.clone();
            typed.iter_mut().zip([kind, 0, 0, 0]).for_each(|(place, octet)| *place = octet);
            typed
        });
        let mut headed = rubbish.clone();
        headed.iter_mut().zip(&data[..16]).for_each(|(place, &octet)| *place = octet);
        typed.chain([headed]).collect::<Vec<_>>()
    });
    let messages: Vec<_> = messages.collect();
    assert_dropped(&mut world, 1, messages.into_iter());
    assert_eq!(world.hosts[1].tunnel.peer(&world.hosts[0].public_key), Some(PeerIndex(0)));
    world.exchange(0, 1);
}
