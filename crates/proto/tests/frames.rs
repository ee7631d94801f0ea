//! What two adits say to each other, and stock peers never hear.

mod world;

use proto::DropReason;
use proto::keypair::Ciphers;
use proto::mtu::Content;
use wire::message::{Cipher, Kind};
use world::{Heard, Options, World, millis, secs};

const ONLY_AES: Ciphers = Ciphers { chacha: false, aes: true };

fn is_adit(world: &World, host: usize) -> bool {
    let host = &world.hosts[host];
    host.tunnel.statuses(host.instant(world.now))[0].is_adit
}

/// The ciphers of all data messages of `host` that are no control frames, which have another length.
fn ciphers(world: &World, host: usize) -> Vec<Cipher> {
    let data = world.tap.heard.iter().filter(|heard| heard.from == host);
    data.filter(|heard| heard.datagram.len() >= 96).filter_map(Heard::cipher).collect()
}

#[test]
fn two_adits_find_out_and_use_aes() {
    let mut world = World::pair();
    world.exchange(0, 1);
    assert!(is_adit(&world, 0) && is_adit(&world, 1));
    world.exchange(0, 1);
    world.exchange(1, 0);
    assert_eq!(ciphers(&world, 0), [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm]);
    assert_eq!(ciphers(&world, 1), [Cipher::Aes256Gcm]);
    // A hello each, and one acknowledgment.
    assert_eq!((world.hosts[0].frames, world.hosts[1].frames), (2, 1));
}

#[test]
fn hellos_are_said_again_with_new_keys() {
    let mut world = World::pair();
    for _ in 0..300 {
        world.exchange(0, 1);
        world.exchange(1, 0);
        world.run_for(secs(2));
    }
    let keypairs = world.hosts[0].tunnel.counters().established;
    assert!(keypairs >= 5);
    assert_eq!(world.hosts[1].frames as u64, keypairs);
    assert!(is_adit(&world, 0) && is_adit(&world, 1));
}

#[test]
fn a_stock_peer_sees_no_frame() {
    // The hosts themselves check it; here it is about having had the chance.
    for (first, second) in
        [(Options::default(), Options::stock()), (Options::stock(), Options::default())]
    {
        let mut world = World::pair_of(first, second);
        for _ in 0..200 {
            world.exchange(0, 1);
            world.exchange(1, 0);
            world.run_for(secs(2));
        }
        assert!(world.hosts[0].tunnel.counters().established >= 3);
        assert!(!is_adit(&world, 0) && !is_adit(&world, 1));
        assert_eq!((world.hosts[0].frames, world.hosts[1].frames), (0, 0));
    }
}

#[test]
fn a_lost_hello_is_repeated() {
    let mut world = World::pair();
    world.exchange(0, 1);
    world.run_for(secs(130));
    world.send(0, 1);
    // The initiation and the response pass, and no hello for a second.
    world.run_for(millis(25));
    world.network.cut(world.hosts[1].address(), world.hosts[0].address());
    world.run_for(secs(1));
    assert!(!is_adit(&world, 0));
    world.network.mend();
    world.run_for(secs(2));
    assert!(is_adit(&world, 0) && is_adit(&world, 1));
}

#[test]
fn a_hello_without_an_answer_is_given_up() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run_for(millis(25));
    world.network.cut(world.hosts[1].address(), world.hosts[0].address());
    world.run_for(secs(60));
    assert_eq!(world.hosts[1].tunnel.counters().control_given_up, 1);
}

#[test]
fn with_aes_alone_data_waits_for_the_hello() {
    let options = Options { ciphers: ONLY_AES, ..Options::default() };
    let mut world = World::pair_of(options, options);
    for _ in 0..100 {
        world.exchange(0, 1);
        world.exchange(1, 0);
        world.run_for(secs(3));
    }
    for host in [0, 1] {
        let ciphers = ciphers(&world, host);
        assert!(ciphers.len() >= 100 && ciphers.iter().all(|&c| c == Cipher::Aes256Gcm));
    }
}

#[test]
fn with_aes_alone_a_stock_peer_gets_nothing() {
    let options = Options { ciphers: ONLY_AES, ..Options::default() };
    let mut world = World::pair_of(options, Options::stock());
    let number = world.send(0, 1);
    world.run_for(secs(6));
    world.send(0, 1);
    assert!(!world.has_arrived(1, number));
    assert_eq!(world.hosts[0].tunnel.drops()[DropReason::NoHello.index()], 2);
    assert_eq!(ciphers(&world, 0), []);
}

#[test]
fn ethernet_frames_wait_for_the_hello() {
    let options = Options { content: Content::Frame, ..Options::default() };
    let mut world = World::pair_of(options, options);
    for host in [0, 1] {
        let mut config = world.config(host, 1 - host);
        config.allowed_ips = ["0.0.0.0/0", "::/0"].map(|all| all.parse().unwrap()).to_vec();
        world.set_peers(host, vec![config]);
    }
    for _ in 0..200 {
        world.exchange(0, 1);
        world.exchange(1, 0);
        world.run_for(secs(2));
    }
    assert!(world.hosts[0].tunnel.counters().established >= 3);
    assert_eq!(world.hosts[0].dropped, []);
}

#[test]
fn ethernet_frames_are_not_for_stock_peers() {
    let options = Options { content: Content::Frame, ..Options::default() };
    let mut world = World::pair_of(options, Options::stock());
    let mut config = world.config(0, 1);
    config.allowed_ips = ["0.0.0.0/0", "::/0"].map(|all| all.parse().unwrap()).to_vec();
    world.set_peers(0, vec![config]);
    world.send(0, 1);
    world.run_for(secs(10));
    assert_eq!(world.hosts[0].tunnel.drops()[DropReason::NoHello.index()], 1);
    assert_eq!(world.times(0, secs(0), Kind::Data).len(), 1, "one keepalive confirms the keys");
}

#[test]
fn a_malformed_control_frame_is_only_counted() {
    let mut world = World::pair();
    world.exchange(0, 1);
    let response = world.tap.heard.iter().find(|heard| heard.kind == Kind::Response).unwrap();
    let index = u32::from_le_bytes(response.datagram[4..8].try_into().unwrap());
    let now = world.now;
    for frame in [&[1][..], &[1, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], &[1; 1025]] {
        world.hosts[1].with_tunnel(now, |tunnel, ctx| tunnel.handle_control(ctx, index, frame));
        world.drain(1);
    }
    assert_eq!(world.hosts[1].tunnel.drops()[DropReason::FrameMalformed.index()], 3);
    world.exchange(0, 1);
}
