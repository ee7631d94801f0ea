//! Every timer of the session, to the millisecond (whitepaper, section 6).

mod world;

use std::time::Duration;

use proto::DropReason;
use proto::path::Path;
use proto::tunnel::{Event, Timing};
use wire::message::Kind;
use world::{Options, World, millis, secs};

/// Up to so much later than the whitepaper says, at random.
const JITTER: Duration = millis(334);

#[track_caller]
fn assert_about(time: Duration, expected: Duration) {
    assert!((expected..expected + JITTER).contains(&time), "{time:?}, expected {expected:?}");
}

/// A pair that has just made keys, of which host 0 is the initiator, and has nothing left to say.
fn quiet_pair() -> (World, Duration) {
    let mut world = World::pair_of(Options::stock(), Options::stock());
    let born = world.now;
    world.exchange(0, 1);
    world.exchange(1, 0);
    world.run_for(secs(40));
    world.tap.forget();
    (world, born)
}

#[test]
fn a_handshake_is_repeated_for_ninety_seconds_and_then_given_up() {
    let mut world = World::pair();
    world.network.cut(world.hosts[0].address(), world.hosts[1].address());
    let start = world.now;
    world.send(0, 1);
    world.run_for(secs(600));
    let times = world.times(0, start, Kind::Initiation);
    for pair in times.windows(2) {
        assert_about(pair[1] - pair[0], secs(5));
    }
    let last = *times.last().unwrap() - start;
    assert!((secs(80)..secs(91)).contains(&last), "{last:?}");
    let events = &world.hosts[0].events;
    let failed = events.iter().filter(|(_, e)| matches!(e, Event::HandshakeFailed { .. })).count();
    assert_eq!(failed, times.len());
    let (when, event) = events.last().unwrap();
    assert!(matches!(event, Event::GaveUp { .. }));
    assert!((secs(90)..secs(97)).contains(&(*when - start)));
    // What waited was thrown away, and nothing happens any more.
    assert_eq!(world.hosts[0].tunnel.drops()[DropReason::NoSession.index()], 1);
    world.network.mend();
    world.run_for(secs(3600));
    assert_eq!(world.times(0, start, Kind::Initiation), times);
    world.exchange(0, 1);
}

#[test]
fn a_peer_that_does_not_answer_is_looked_for_elsewhere_within_the_same_attempt() {
    let mut world = World::pair();
    let (here, there) = (world.hosts[0].address(), world.hosts[1].address());
    world.network.cut(here, there);
    let start = world.now;
    world.send(0, 1);
    world.run_for(secs(6));
    let other = Path { remote: "203.0.113.9:1".parse().unwrap(), ..world.hosts[1].path() };
    assert!(try_path(&mut world, other));
    world.run_for(secs(600));
    let initiations = world.times(0, start, Kind::Initiation);
    let elsewhere = world.tap.heard.iter().filter(|heard| heard.to.is_none()).count();
    // The first two were on their way.
    assert_eq!(elsewhere, initiations.len() - 2);
    let last = *initiations.last().unwrap() - start;
    assert!((secs(80)..secs(91)).contains(&last), "{last:?}");
}

#[test]
fn a_peer_that_was_heard_of_is_not_looked_for_elsewhere() {
    let (mut world, _) = quiet_pair();
    let other = Path { remote: "203.0.113.9:1".parse().unwrap(), ..world.hosts[1].path() };
    // Nobody asks for keys.
    assert!(!try_path(&mut world, other));
    // The initiation got lost, and data goes on.
    let (here, there) = (world.hosts[0].address(), world.hosts[1].address());
    world.network.cut(here, there);
    let (key, now) = (world.hosts[1].tunnel.public_key(), world.now);
    world.hosts[0].with_tunnel(now, |tunnel, ctx| {
        let peer = tunnel.peer(&key).unwrap();
        tunnel.initiate(ctx, peer);
    });
    world.drain(0);
    world.run_for(millis(5400));
    world.network.mend();
    world.exchange(1, 0);
    assert!(!try_path(&mut world, other));
    world.exchange(0, 1);
}

/// Whether host 0 looks for its peer at `path`.
fn try_path(world: &mut World, path: Path) -> bool {
    let key = world.hosts[1].tunnel.public_key();
    let host = &mut world.hosts[0];
    let (peer, now) = (host.tunnel.peer(&key).expect("it is a peer"), host.instant(world.now));
    host.tunnel.try_path(now, peer, path)
}

#[test]
fn packets_keep_an_attempt_alive() {
    let mut world = World::pair();
    world.network.cut(world.hosts[0].address(), world.hosts[1].address());
    for _ in 0..200 {
        world.send(0, 1);
        world.run_for(secs(1));
    }
    world.network.mend();
    world.run_for(millis(5400));
    assert_eq!(world.hosts[0].events.iter().filter(|(_, e)| is_gave_up(e)).count(), 0);
    // The last 128 of 200.
    let arrived = (1..=200).filter(|&number| world.has_arrived(1, number));
    assert_eq!(arrived.collect::<Vec<_>>(), (73..=200).collect::<Vec<_>>());
}

fn is_gave_up(event: &Event) -> bool {
    matches!(event, Event::GaveUp { .. })
}

#[test]
fn data_without_an_answer_for_fifteen_seconds_makes_new_keys() {
    let (mut world, _) = quiet_pair();
    world.network.cut(world.hosts[1].address(), world.hosts[0].address());
    let start = world.now;
    world.send(0, 1);
    world.run_for(secs(7));
    // More data does not put it off.
    world.send(0, 1);
    world.run_for(secs(10));
    let times = world.times(0, start, Kind::Initiation);
    assert_eq!(times.len(), 1);
    assert_about(times[0] - start, secs(15));
}

#[test]
fn an_answer_of_any_kind_puts_the_alarm_off() {
    let (mut world, _) = quiet_pair();
    let start = world.now;
    for _ in 0..6 {
        world.send(0, 1);
        world.run_for(secs(12));
    }
    world.run_for(secs(30));
    assert_eq!(world.times(0, start, Kind::Initiation), []);
}

#[test]
fn received_data_is_acknowledged_by_one_keepalive_after_ten_seconds() {
    let (mut world, _) = quiet_pair();
    let start = world.now;
    world.send(0, 1);
    world.run_for(secs(60));
    let sent = world.sent_since(1, start);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].is_keepalive());
    assert_eq!(sent[0].at - start, secs(10) + millis(10));
    // And nobody acknowledges that.
    assert_eq!(world.sent_since(0, start).len(), 1);
}

#[test]
fn an_answer_spares_the_keepalive() {
    let (mut world, _) = quiet_pair();
    let start = world.now;
    for _ in 0..5 {
        world.send(0, 1);
        world.run_for(secs(4));
        world.send(1, 0);
        world.run_for(secs(4));
    }
    let keepalives = world.tap.heard.iter().filter(|heard| heard.is_keepalive());
    assert_eq!(keepalives.count(), 0);
    world.run_for(secs(20));
    assert_eq!(world.sent_since(0, start).len(), 6, "one keepalive, for the last answer");
}

#[test]
fn a_persistent_keepalive_follows_every_silence() {
    let options = Options { keepalive: Some(secs(25)), ..Options::stock() };
    let mut world = World::pair_of(options, Options::stock());
    let start = world.now;
    // It makes keys without any data.
    world.run_for(secs(1));
    assert_eq!(world.times(0, start, Kind::Initiation), [start]);
    world.run_for(secs(110));
    let since: Vec<_> = world.times(0, start, Kind::Data).iter().map(|&at| at - start).collect();
    let first = millis(20);
    assert_eq!(since, [0, 1, 2, 3, 4].map(|i| first + i * secs(25)));
    // Data counts as well.
    world.run_until(start + secs(113));
    world.exchange(0, 1);
    let after = world.now;
    world.run_for(secs(24));
    let keepalives: Vec<_> =
        world.sent_since(0, after).into_iter().filter(|heard| heard.is_keepalive()).collect();
    assert!(keepalives.is_empty(), "{keepalives:?}");
}

#[test]
fn an_initiator_that_sends_makes_new_keys_after_two_minutes() {
    let (mut world, born) = quiet_pair();
    world.run_until(born + secs(119));
    world.exchange(0, 1);
    assert_eq!(world.times(0, born, Kind::Initiation), []);
    world.run_until(born + secs(121));
    let start = world.now;
    world.exchange(0, 1);
    assert_eq!(world.times(0, born, Kind::Initiation), [start]);
    assert_eq!(world.times(1, born, Kind::Initiation), []);
}

#[test]
fn a_shorter_rekey_time_counts() {
    let options = Options { timing: Timing { rekey_after: secs(20) }, ..Options::stock() };
    let mut world = World::pair_of(options, Options::stock());
    for _ in 0..100 {
        world.exchange(0, 1);
        world.run_for(secs(1));
    }
    let initiations = world.times(0, Duration::ZERO, Kind::Initiation).len();
    assert!((5..=6).contains(&initiations), "{initiations}");
}

#[test]
fn a_responder_leaves_new_keys_to_the_initiator() {
    let (mut world, born) = quiet_pair();
    for second in [121, 150, 164] {
        world.run_until(born + secs(second) - millis(20));
        world.send(1, 0);
        // The answer by a keepalive would be a message of the initiator.
        world.network.cut(world.hosts[1].address(), world.hosts[0].address());
    }
    world.network.mend();
    assert_eq!(world.times(1, born, Kind::Initiation), []);
}

#[test]
fn an_initiator_that_only_receives_makes_new_keys_in_time() {
    let (mut world, born) = quiet_pair();
    world.run_until(born + secs(164));
    world.send(1, 0);
    world.run_for(millis(500));
    assert_eq!(world.times(0, born, Kind::Initiation), []);
    world.run_until(born + secs(166));
    world.send(1, 0);
    world.run_for(millis(500));
    assert_eq!(world.times(0, born, Kind::Initiation).len(), 1);
}

#[test]
fn keys_are_not_used_after_three_minutes() {
    let (mut world, born) = quiet_pair();
    world.run_until(born + secs(182));
    let start = world.now;
    // The responder cannot send with the old keys either, and makes new ones.
    let number = world.send(1, 0);
    assert_eq!(world.times(1, start, Kind::Data), []);
    assert_eq!(world.times(1, start, Kind::Initiation), [start]);
    world.run_for(secs(1));
    assert!(world.has_arrived(0, number));
}

#[test]
fn keys_are_erased_after_nine_minutes_without_new_ones() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let indices: Vec<(usize, u32)> = world
        .tap
        .heard
        .iter()
        .filter(|heard| matches!(heard.kind, Kind::Initiation | Kind::Response))
        .map(|heard| (heard.from, u32::from_le_bytes(heard.datagram[4..8].try_into().unwrap())))
        .collect();
    assert_eq!(indices.len(), 2);
    let are_there = |world: &World| {
        indices.iter().all(|&(host, index)| {
            world.hosts[host].tunnel.directory().load().keypairs.get(index).is_some()
        })
    };
    let born = world.now;
    world.run_until(born + secs(539));
    assert!(are_there(&world));
    world.run_until(born + secs(541));
    for &(host, index) in &indices {
        let directory = world.hosts[host].tunnel.directory().load();
        assert!(directory.keypairs.get(index).is_none());
    }
    assert_eq!(world.hosts[0].poll_timeout(), None, "nothing is left to do");
    world.exchange(0, 1);
}

#[test]
fn new_keys_wait_until_the_last_attempt_is_five_seconds_ago() {
    let (mut world, _) = quiet_pair();
    let start = world.now;
    for _ in 0..40 {
        let now = world.now;
        world.hosts[0].with_tunnel(now, |tunnel, ctx| {
            let peer = tunnel.statuses(ctx.now)[0].peer;
            tunnel.initiate(ctx, peer);
        });
        world.drain(0);
        world.run_for(millis(200));
    }
    let times = world.times(0, start, Kind::Initiation);
    assert_eq!(times.len(), 2, "{times:?}");
    assert_eq!(times[1] - times[0], secs(5));
}

#[test]
fn a_flow_with_answers_costs_few_looks() {
    let mut world = World::pair();
    let start = world.now;
    while world.now < start + secs(100) {
        world.send(0, 1);
        world.run_for(millis(25));
        world.send(1, 0);
        world.run_for(millis(25));
    }
    for host in &world.hosts {
        // One for each of both timers in 10 to 15 seconds, and the confirmation.
        assert!(host.looks <= 2 * 10 + 2, "{} looks", host.looks);
        assert_eq!(host.events.len(), 1, "{:?}", host.events);
    }
}
