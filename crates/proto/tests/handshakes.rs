//! Handshakes in every order, by whom and from where they may come.

mod world;

use proto::tunnel::{Context, Event, PeerConfig, TIMERS_A_TURN};
use proto::{DropReason, PresharedKey, PrivateKey, Tunnel};
use simnet::Conditions;
use wire::message::{self, Kind};
use world::{Options, World, millis, secs};

/// The handshake messages and the data of `world` so far, by sender.
fn flow(world: &World) -> Vec<(usize, Kind)> {
    world.tap.heard.iter().map(|heard| (heard.from, heard.kind)).collect()
}

fn established(world: &World, host: usize) -> usize {
    let events = world.hosts[host].events.iter();
    events.filter(|(_, event)| matches!(event, Event::Established { .. })).count()
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

fn initiate(world: &mut World, host: usize) {
    let now = world.now;
    world.hosts[host].with_tunnel(now, |tunnel, ctx| {
        let peer = tunnel.statuses(ctx.now)[0].peer;
        tunnel.initiate(ctx, peer);
    });
    world.drain(host);
}

#[test]
fn the_first_packet_makes_keys_and_confirms_them() {
    let mut world = World::pair_of(Options::stock(), Options::stock());
    world.exchange(0, 1);
    assert_eq!(flow(&world), [(0, Kind::Initiation), (1, Kind::Response), (0, Kind::Data)]);
    assert_eq!((established(&world, 0), established(&world, 1)), (1, 1));
}

#[test]
fn without_a_packet_a_keepalive_confirms_the_keys() {
    let mut world = World::pair_of(Options::stock(), Options::stock());
    initiate(&mut world, 0);
    world.run_for(millis(100));
    assert_eq!(flow(&world), [(0, Kind::Initiation), (1, Kind::Response), (0, Kind::Data)]);
    assert!(world.tap.heard[2].is_keepalive());
    assert_eq!(established(&world, 1), 1);
}

#[test]
fn a_responder_does_not_send_before_the_first_message() {
    let mut world = World::pair_of(Options::stock(), Options::stock());
    initiate(&mut world, 0);
    world.run_for(millis(15));
    assert_eq!(flow(&world).len(), 2, "the response is on its way");
    // It sends an initiation of its own, since it knows no other way.
    let number = world.send(1, 0);
    assert_eq!(flow(&world).last(), Some(&(1, Kind::Initiation)));
    world.run_for(millis(100));
    assert!(world.has_arrived(0, number));
}

#[test]
fn both_may_initiate_at_the_same_time() {
    for options in [Options::stock(), Options::default()] {
        let mut world = World::pair_of(options, options);
        let numbers = (world.send(0, 1), world.send(1, 0));
        world.run_for(millis(100));
        assert!(world.has_arrived(1, numbers.0) && world.has_arrived(0, numbers.1));
        for _ in 0..300 {
            world.exchange(0, 1);
            world.exchange(1, 0);
            world.run_for(secs(1));
        }
        for host in &world.hosts {
            assert!(host.tunnel.counters().initiations_sent <= 4);
            let status = &host.tunnel.statuses(host.instant(world.now))[0];
            assert_eq!(status.is_adit, options.extensions);
        }
    }
}

#[test]
fn keys_that_both_made_at_the_same_time_are_renewed_before_they_expire() {
    let mut world = World::pair_of(Options::stock(), Options::stock());
    let born = world.now;
    world.send(0, 1);
    world.send(1, 0);
    while world.now < born + secs(130) {
        world.run_for(secs(1));
        world.exchange(0, 1);
        world.exchange(1, 0);
    }
    let renewals = (0..2).flat_map(|host| world.times(host, born + secs(119), Kind::Initiation));
    assert!(renewals.count() > 0);
}

#[test]
fn many_handshakes_that_are_wanted_at_once_all_begin() {
    const PEERS: usize = 2 * TIMERS_A_TURN;
    let mut world = World::pair();
    let configs = (0..PEERS).map(|number| {
        let mut octets = [9; 32];
        octets[8..16].copy_from_slice(&number.to_le_bytes());
        let public_key = PrivateKey::from_bytes(octets).public_key();
        PeerConfig { public_key, ..world.config(0, 1) }
    });
    let peers = world.set_peers(0, configs.collect());
    let sent = |world: &World| world.hosts[0].tunnel.counters().initiations_sent;
    let now = world.now;
    let begin = |tunnel: &mut Tunnel, ctx: &mut Context<'_>| {
        for &peer in &peers {
            tunnel.initiate(ctx, peer);
        }
        tunnel.handle_timeout(ctx);
    };
    world.hosts[0].with_tunnel(now, begin);
    assert!(sent(&world) <= TIMERS_A_TURN as u64, "others have their turn in between");
    world.run_for(millis(1));
    assert_eq!(sent(&world), PEERS as u64);
}

#[test]
fn a_peer_that_has_roamed_goes_where_it_is_told_to_be() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let first = world.hosts[0].path();
    world.roam(0);
    world.exchange(0, 1);
    let path = |world: &World| {
        let host = &world.hosts[1];
        host.tunnel.statuses(host.instant(world.now))[0].path
    };
    let told = |world: &World, path| vec![PeerConfig { path, ..world.config(1, 0) }];
    let peers = told(&world, Some(first));
    world.set_peers(1, peers);
    assert_eq!(path(&world), Some(first));
    world.exchange(0, 1);
    let peers = told(&world, None);
    world.set_peers(1, peers);
    assert_eq!(path(&world), Some(world.hosts[0].path()));
}

#[test]
fn a_replayed_initiation_has_no_answer() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let initiation = last(&world, 0, Kind::Initiation);
    world.run_for(secs(60));
    let (start, from) = (world.now, world.hosts[0].address());
    world.inject(1, from, &initiation);
    world.run_for(secs(1));
    assert!(world.sent_since(1, start).is_empty());
    assert_eq!(world.hosts[1].tunnel.counters().replayed_initiations, 1);
    world.exchange(0, 1);
}

#[test]
fn a_replayed_response_or_message_does_nothing() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.exchange(1, 0);
    let (response, data) = (last(&world, 1, Kind::Response), last(&world, 1, Kind::Data));
    let elsewhere = "203.0.113.1:1".parse().unwrap();
    world.inject(0, elsewhere, &response);
    world.inject(0, elsewhere, &data);
    assert_eq!(drops(&world, 0, DropReason::UnknownReceiver), 1);
    assert_eq!(world.hosts[0].dropped, [DropReason::Replayed]);
    world.exchange(0, 1);
}

#[test]
fn initiations_of_a_peer_are_answered_fifty_times_a_second_at_most() {
    let mut world = World::pair();
    world.network.cut(world.hosts[0].address(), world.hosts[1].address());
    world.send(0, 1);
    let first = last(&world, 0, Kind::Initiation);
    world.run_for(secs(6));
    let second = last(&world, 0, Kind::Initiation);
    let (start, from) = (world.now, world.hosts[0].address());
    world.inject(1, from, &first);
    world.inject(1, from, &second);
    assert_eq!(world.sent_since(1, start).len(), 1);
    assert_eq!(world.hosts[1].tunnel.counters().rate_limited, 1);
}

#[test]
fn nobody_answers_strangers() {
    let mut world = World::new(3, Conditions::GOOD);
    for _ in 0..2 {
        world.add(Options::default());
    }
    // The first knows the second, but not the other way round.
    world.connect(0);
    let start = world.now;
    world.send(0, 1);
    world.run_for(secs(30));
    assert!(world.sent_since(1, start).is_empty());
    assert!(world.hosts[1].tunnel.counters().unknown_peer >= 5);
    // Nor rubbish, whatever its type.
    let from = world.hosts[0].address();
    for kind in 0..=5 {
        for len in [0, 1, 4, 32, 64, 92, 148, 1500] {
            let mut datagram = vec![0x5a; len];
            datagram.iter_mut().zip([kind, 0, 0, 0]).for_each(|(place, octet)| *place = octet);
            world.inject(1, from, &datagram);
        }
    }
    assert!(world.sent_since(1, start).is_empty());
    assert!(world.hosts[1].tunnel.counters().bad_mac1 >= 2);
}

#[test]
fn under_load_only_those_with_a_cookie_are_heard() {
    let mut world = World::pair();
    world.hosts[1].under_load = true;
    let start = world.now;
    let number = world.send(0, 1);
    world.run_for(secs(1));
    assert_eq!(flow(&world), [(0, Kind::Initiation), (1, Kind::CookieReply)]);
    assert_eq!(world.hosts[0].tunnel.counters().cookie_replies_received, 1);
    assert!(!world.has_arrived(1, number));
    // The cookie is in the next one.
    world.run_for(secs(5));
    assert!(world.has_arrived(1, number));
    assert_eq!(world.times(1, start, Kind::Response).len(), 1);
}

#[test]
fn a_loaded_initiator_sends_cookies_for_responses() {
    let mut world = World::pair();
    world.hosts[0].under_load = true;
    let number = world.send(0, 1);
    world.run_for(millis(100));
    let expected = [(0, Kind::Initiation), (1, Kind::Response), (0, Kind::CookieReply)];
    assert_eq!(flow(&world), expected);
    world.run_for(secs(6));
    assert!(world.has_arrived(1, number));
}

#[test]
fn a_source_with_a_cookie_may_still_not_flood() {
    let mut world = World::pair();
    world.hosts[1].under_load = true;
    world.send(0, 1);
    world.run_for(secs(6));
    let (initiation, from) = (last(&world, 0, Kind::Initiation), world.hosts[0].address());
    for _ in 0..20 {
        world.inject(1, from, &initiation);
    }
    let counters = world.hosts[1].tunnel.counters();
    assert_eq!(counters.rate_limited + counters.replayed_initiations, 20);
    assert!(counters.rate_limited >= 15, "{counters:?}");
}

#[test]
fn a_cookie_reply_from_elsewhere_moves_nobody() {
    let mut world = World::pair();
    world.hosts[1].under_load = true;
    world.network.cut(world.hosts[1].address(), world.hosts[0].address());
    world.send(0, 1);
    world.run_for(millis(100));
    let reply = last(&world, 1, Kind::CookieReply);
    world.network.mend();
    world.inject(0, "203.0.113.1:1".parse().unwrap(), &reply);
    assert_eq!(world.hosts[0].tunnel.counters().cookie_replies_received, 1);
    let status = world.hosts[0].tunnel.statuses(world.hosts[0].instant(world.now)).remove(0);
    assert_eq!(status.path, Some(world.hosts[1].path()));
}

#[test]
fn a_peer_is_where_its_last_message_came_from() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.roam(0);
    world.exchange(0, 1);
    let moved = world.hosts[1].events.last().unwrap().1.clone();
    assert!(matches!(moved, Event::PathChanged { .. }));
    world.exchange(1, 0);
    // By a handshake as well.
    world.run_for(secs(200));
    world.roam(0);
    world.exchange(0, 1);
    world.exchange(1, 0);
}

#[test]
fn a_handshake_alone_moves_both() {
    let mut world = World::pair();
    let path_to = |world: &World, host: usize| {
        let here = world.hosts[1 - host].instant(world.now);
        world.hosts[1 - host].tunnel.statuses(here)[0].path
    };
    world.exchange(0, 1);
    world.run_for(secs(200));
    world.roam(0);
    initiate(&mut world, 0);
    world.run_for(millis(15));
    assert_eq!(path_to(&world, 0), Some(world.hosts[0].path()));
    // The responder moves while its response is on its way from where it was.
    let response = last(&world, 1, Kind::Response);
    world.roam(1);
    let from = world.hosts[1].address();
    world.inject(0, from, &response);
    assert_eq!(path_to(&world, 1), Some(world.hosts[1].path()));
}

#[test]
fn a_forged_message_moves_nobody() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.send(0, 1);
    let mut forged = last(&world, 0, Kind::Data);
    *forged.last_mut().unwrap() ^= 1;
    world.inject(1, "203.0.113.1:1".parse().unwrap(), &forged);
    assert_eq!(world.hosts[1].dropped, [DropReason::Undecryptable]);
    world.run_for(millis(100));
    world.exchange(1, 0);
}

#[test]
fn who_knows_no_path_waits_for_the_first_message() {
    let unknowing = Options { knows_paths: false, ..Options::default() };
    let mut world = World::pair_of(Options::default(), unknowing);
    world.send(1, 0);
    assert_eq!(drops(&world, 1, DropReason::NoEndpoint), 1);
    assert!(world.tap.heard.is_empty());
    world.exchange(0, 1);
    world.exchange(1, 0);
}

#[test]
fn a_peer_that_lost_its_keys_is_found_again() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let now = world.now;
    world.hosts[1].restart(now);
    world.connect(1);
    let number = world.send(0, 1);
    world.run_for(secs(16));
    assert!(!world.has_arrived(1, number), "it had no keys");
    world.exchange(0, 1);
}

#[test]
fn the_wall_clock_may_go_back() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let now = world.now;
    world.hosts[0].wall.jump(now, secs(1000));
    for _ in 0..10 {
        world.run_for(secs(200));
        world.exchange(0, 1);
    }
    assert_eq!(world.hosts[1].tunnel.counters().replayed_initiations, 0);
    assert_eq!(established(&world, 1), 11);
}

#[test]
fn the_wall_clock_may_go_back_before_the_first_initiation() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.run_for(secs(1));
    let now = world.now;
    world.hosts[0].restart(now);
    world.hosts[0].wall.jump(now, secs(1000));
    world.connect(0);
    world.exchange(0, 1);
}

#[test]
fn both_sides_must_have_the_same_preshared_key() {
    let mut world = World::pair();
    let preshared_key = PresharedKey::from_bytes([7; 32]);
    let with_key = |world: &World, host: usize| {
        let preshared_key = preshared_key.clone();
        vec![PeerConfig { preshared_key, ..world.config(host, 1 - host) }]
    };
    let peers = with_key(&world, 0);
    world.set_peers(0, peers);
    let number = world.send(0, 1);
    world.run_for(secs(20));
    assert!(!world.has_arrived(1, number));
    assert!(drops(&world, 0, DropReason::Undecryptable) >= 3);
    // The attempt that is under way takes the other side's new key up.
    let peers = with_key(&world, 1);
    world.set_peers(1, peers);
    world.run_for(secs(6));
    assert!(world.has_arrived(1, number));
    world.exchange(1, 0);
}

#[test]
fn another_preshared_key_ends_pending_handshakes_only() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let preshared_key = PresharedKey::from_bytes([7; 32]);
    let change = |world: &mut World, host: usize| {
        let preshared_key = preshared_key.clone();
        let config = world.config(host, 1 - host);
        world.set_peers(host, vec![PeerConfig { preshared_key, ..config }]);
    };
    change(&mut world, 0);
    world.exchange(0, 1);
    // A handshake that began with the old key is not completed with either.
    world.run_for(secs(200));
    world.send(0, 1);
    change(&mut world, 1);
    let start = world.now;
    world.run_for(secs(6));
    assert_eq!(world.times(0, start, Kind::Initiation).len(), 1);
    world.exchange(0, 1);
    let number = world.send(0, 1);
    world.run_for(secs(1));
    assert!(world.has_arrived(1, number));
}

#[test]
fn peers_come_and_go_without_disturbing_others() {
    let mut world = World::new(5, Conditions::GOOD);
    for _ in 0..4 {
        world.add(Options::default());
    }
    world.connect_all();
    for host in 1..4 {
        world.exchange(0, host);
    }
    let before = world.hosts[0].tunnel.counters().established;
    let rest = vec![world.config(0, 3), world.config(0, 1)];
    let indices = world.set_peers(0, rest);
    world.exchange(0, 1);
    world.exchange(0, 3);
    assert_eq!(world.hosts[0].tunnel.counters().established, before, "nobody needed new keys");
    // The one that was removed is a stranger.
    world.send(0, 2);
    assert_eq!(world.hosts[0].dropped, [DropReason::NoPeer]);
    let number = world.send(2, 0);
    world.run_for(secs(20));
    assert!(!world.has_arrived(0, number));
    // Who comes again has another index, and the others still have theirs.
    let all = vec![world.config(0, 1), world.config(0, 2), world.config(0, 3)];
    let again = world.set_peers(0, all);
    assert_eq!((again[0], again[2]), (indices[1], indices[0]));
    world.exchange(0, 2);
}

#[test]
fn a_peer_may_be_removed_during_its_handshake() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run_for(millis(15));
    world.set_peers(0, Vec::new());
    world.run_for(secs(1));
    assert_eq!(flow(&world), [(0, Kind::Initiation), (1, Kind::Response)]);
    assert_eq!(drops(&world, 0, DropReason::UnknownReceiver), 1);
    assert_eq!(world.hosts[0].poll_timeout(), None);
    world.connect(0);
    world.exchange(0, 1);
}

#[test]
fn the_last_peer_owns_a_prefix() {
    let mut world = World::new(6, Conditions::GOOD);
    for _ in 0..3 {
        world.add(Options::default());
    }
    world.connect_all();
    let both = world.config(0, 1).allowed_ips;
    let second = PeerConfig { allowed_ips: both, ..world.config(0, 2) };
    let peers = vec![world.config(0, 1), second];
    let indices = world.set_peers(0, peers);
    let directory = world.hosts[0].tunnel.directory().load();
    assert_eq!(directory.routing.owner("10.0.0.2".parse().unwrap()), Some(indices[1]));
}

#[test]
fn packets_that_wait_go_to_nobody_else() {
    let mut world = World::pair();
    let peer = world.hosts[0].tunnel.statuses(world.hosts[0].instant(world.now))[0].peer;
    let now = world.now;
    // A lane that has an old directory thinks that this packet is for host 1.
    let mut packet = [0; 20];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 20]);
    packet[16..].copy_from_slice(&[10, 0, 0, 99]);
    world.hosts[0].with_tunnel(now, |tunnel, ctx| tunnel.handle_outgoing(ctx, peer, &packet));
    world.drain(0);
    assert_eq!(drops(&world, 0, DropReason::NoPeer), 1);
    assert!(world.tap.heard.is_empty());
}

#[test]
fn one_keeps_no_company_with_oneself() {
    let mut world = World::new(8, Conditions::GOOD);
    world.add(Options::default());
    let peers = vec![world.config(0, 0)];
    world.set_peers(0, peers);
    world.send(0, 0);
    world.run_for(secs(200));
    assert!(world.tap.heard.is_empty());
}

#[test]
fn ten_thousand_peers_are_served_in_time() {
    const PEERS: u32 = 10_000;
    let mut world = World::new(9, Conditions::GOOD);
    world.add(Options::default());
    let mut random = world.random.fork();
    let peers = (0..PEERS).map(|number| {
        let mut key = [0; 32];
        random.fill(&mut key);
        let [_, a, b, c] = number.to_be_bytes();
        PeerConfig {
            public_key: key.into(),
            preshared_key: PresharedKey::default(),
            path: Some(world.hosts[0].path()),
            keepalive: Some(secs(u64::from(number % 50) + 10)),
            allowed_ips: vec![format!("10.{a}.{b}.{c}/32").parse().unwrap()],
            invitation: false,
        }
    });
    let peers: Vec<_> = peers.collect();
    let indices = world.hosts[0].with_tunnel(secs(1), |tunnel, ctx| tunnel.set_peers(ctx, peers));
    assert_eq!(indices.len(), PEERS as usize);
    let mut sent = 0;
    let (mut now, end) = (secs(1), secs(13));
    while now < end {
        sent += world.hosts[0].drain(now).len();
        let due = world.hosts[0].poll_timeout().unwrap();
        assert!(due >= now || due + millis(1) >= now, "timers come in order");
        now = now.max(due);
        world.hosts[0].with_tunnel(now, Tunnel::handle_timeout);
    }
    // Each at once, and again after 5 and after 10 s.
    assert_eq!(sent, 3 * PEERS as usize);
}

#[test]
fn every_message_is_of_a_length_of_its_own() {
    let mut world = World::pair();
    world.exchange(0, 1);
    for heard in &world.tap.heard {
        assert_eq!(message::kind(&heard.datagram), Some(heard.kind));
    }
}
