//! A third host that has heard every datagram of a conversation sends them again, and rubbish of every kind.
//!
//! ```text
//!   host A                     host B                host C: hears everything
//!   adit0 192.0.2.1 .......... adit0 192.0.2.2
//!   eth0  10.1.0.1             eth0  10.1.0.2        eth0  10.1.0.3
//!    |                          |                     |
//!  --+--------------------------+---------------------+-- lan
//! ```

use std::fs;
use std::net::UdpSocket;

use lab::topology::ETH0;
use lab::{Capture, Filter, ThreeHosts, Witness};
use serde_json::Value;
use wire::ethernet::Frame;
use wire::{ipv4, message, udp};

use crate::rig::pair::{Family, PORT};
use crate::rig::ping::Pinger;
use crate::rig::sealed::{Station, only_peer, toml};
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::{DEVICE, runnable};
use crate::rig::wire::refuse_super_packets;
use crate::rig::{Pattern, sys};

/// Datagrams that are sent before it is asked how many were counted, so that none is lost in between.
const AT_A_TIME: usize = 40;

/// How often a conversation is sent again.
const TIMES: usize = 3;

/// Octets by which the worker may grow: the kernel's memory is counted in pages, and touched when it is first used.
const GROWTH: u64 = 4 << 20;

/// A and B, which talk, and C's socket.
struct Scene {
    a: Station,
    b: Station,
    c: UdpSocket,
    hosts: ThreeHosts,
}

fn scene() -> Option<Scene> {
    if !runnable() {
        return None;
    }
    let hosts = ThreeHosts::build().unwrap();
    for host in hosts.hosts() {
        refuse_super_packets(host);
    }
    let a = Station::up(&hosts.a, 1, &toml(1, "", "", &[only_peer(2)]));
    let b = Station::up(&hosts.b, 2, &toml(2, "", "", &[only_peer(1)]));
    let c = crate::rig::udp::bind(&hosts.c, (Family::V4.outer(3), PORT).into());
    Some(Scene { a, b, c, hosts })
}

/// How many datagrams a tunnel has dropped, by the names of the reasons; those that lanes and the slow path count.
fn dropped(status: &Value) -> u64 {
    let drops = status["traffic"]["back"]["drops"].as_object();
    drops.into_iter().flatten().map(|(_, count)| count.as_u64().unwrap()).sum()
}

fn dropped_for(status: &Value, reason: &str) -> u64 {
    status["traffic"]["back"]["drops"][reason].as_u64().unwrap_or(0)
}

/// Where a tunnel's only peer is, when keys were made with it, and how many packets came from it; keepalives are none.
fn standing(status: &Value) -> [Value; 3] {
    let peer = &status["peers"][0];
    let delivered = &status["traffic"]["back"]["packets"];
    [&peer["endpoint"], &peer["latest_handshake"], delivered].map(Value::clone)
}

impl Scene {
    fn receivers(&self) -> [(&Station, &lab::Host, u8); 2] {
        [(&self.a, &self.hosts.a, 1), (&self.b, &self.hosts.b, 2)]
    }

    /// C sends all these to A and to B, each of which must count every single one as dropped.
    fn assert_dropped(&self, datagrams: &[Vec<u8>], in_each: u64) {
        for (station, host, number) in self.receivers() {
            for datagrams in datagrams.chunks(AT_A_TIME) {
                let expected = dropped(&station.status(host)) + datagrams.len() as u64 * in_each;
                for datagram in datagrams {
                    self.c.send_to(datagram, (Family::V4.outer(number), PORT)).unwrap();
                }
                station.wait_for_status(host, |status| dropped(status) >= expected);
            }
        }
    }

    /// C sends trains, each of so many messages, to A and to B, each of which must count every message as dropped.
    fn assert_trains_dropped(&self, trains: &[Vec<u8>], in_each: u64) {
        for train in trains {
            self.assert_dropped(std::slice::from_ref(train), in_each);
        }
    }

    /// The messages of a conversation between A and B, as C could hear them.
    fn conversation(&self) -> Vec<Vec<u8>> {
        let mut heard = Capture::start(&self.hosts.b, ETH0, &Filter::udp_port(PORT)).unwrap();
        Pinger::new(&self.hosts.a, Family::V4.inner(2)).assert_answers(56);
        crate::rig::sealed::wait_for_cipher(&self.a, &self.hosts.a, &self.cipher());
        assert_transfers(&self.hosts.a, &self.hosts.b, Family::V4.inner(2), 1 << 18);
        Pinger::new(&self.hosts.b, Family::V6.inner(1)).assert_answers(1000);
        let messages = std::iter::from_fn(|| heard.take().unwrap());
        let messages: Vec<_> = messages.map(|packet| payload(&packet.octets)).collect();
        assert_eq!(heard.tally().unwrap().lost, 0);
        messages
    }

    /// The cipher that both use in the end.
    fn cipher(&self) -> String {
        let status = self.a.wait_for_status(&self.hosts.a, |status| {
            status["peers"][0]["is_adit"].as_bool() == Some(true)
        });
        status["peers"][0]["cipher"].as_str().unwrap().to_owned()
    }
}

/// The datagram in a frame.
fn payload(frame: &[u8]) -> Vec<u8> {
    let frame = Frame::parse(frame).unwrap();
    let packet = ipv4::Packet::parse(frame.payload()).unwrap();
    udp::Packet::parse(packet.payload()).unwrap().payload().to_vec()
}

/// What the kernel says of a process, in octets.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Counts what comes in at a tunnel's device, and what its host sends to C.
struct Witnesses {
    at_devices: [Capture; 2],
    at_c: Witness,
}

impl Witnesses {
    fn swear(scene: &Scene) -> Self {
        let at = |host| Capture::start(host, DEVICE, &Filter::everything()).unwrap();
        let at_c = Witness::start(&scene.hosts.c, ETH0, &Filter::udp_port(PORT)).unwrap();
        Self { at_devices: [at(&scene.hosts.a), at(&scene.hosts.b)], at_c }
    }

    /// Fails if a packet was delivered, or anything but the `sent` datagrams of C was on its wire.
    fn testify(mut self, sent: u64) {
        for capture in &mut self.at_devices {
            while let Some(packet) = capture.take().unwrap() {
                assert!(packet.outgoing, "a packet was delivered: {packet:02x?}");
            }
        }
        assert_eq!(self.at_c.testify().unwrap().seen, sent, "C was answered");
    }
}

#[test]
fn a_conversation_that_a_third_host_sends_again_means_nothing() {
    let Some(scene) = scene() else { return };
    let messages = scene.conversation();
    let data = messages.iter().filter(|octets| message::kind(octets) == Some(message::Kind::Data));
    let (data, all) = (data.count() as u64, messages.len() as u64);
    assert!(data > 100 && all > data, "{data} of {all}");
    let replayed = |status: &Value| dropped_for(status, "replayed");
    let before = scene.receivers().map(|(station, host, _)| station.status(host));
    let witnesses = Witnesses::swear(&scene);
    for _ in 0..TIMES {
        scene.assert_dropped(&messages, 1);
    }
    witnesses.testify(2 * TIMES as u64 * all);
    let mut counted = 0;
    for ((station, host, _), before) in scene.receivers().into_iter().zip(before) {
        let after = station.status(host);
        assert_eq!(standing(&after), standing(&before));
        counted += replayed(&after) - replayed(&before);
        let known = ["replayed", "unknown_receiver", "bad_mac", "stale_timestamp"];
        let known = known.map(|reason| dropped_for(&after, reason)).iter().sum::<u64>();
        assert_eq!(known, dropped(&after), "{after}");
    }
    // Each message of data was for one of the two.
    assert_eq!(counted, TIMES as u64 * data);
    let initiations = scene.b.status(&scene.hosts.b)["handshakes"]["replayed_initiations"].as_u64();
    assert!(initiations >= Some(TIMES as u64), "{initiations:?}");
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).assert_answers(56);
    assert_transfers(&scene.hosts.b, &scene.hosts.a, Family::V6.inner(1), 1 << 20);
}

#[test]
fn rubbish_of_every_kind_and_length_is_only_counted() {
    let Some(scene) = scene() else { return };
    let messages = scene.conversation();
    let data = messages.iter().rev().find(|octets| octets.len() > 1000).unwrap();
    let mut pattern = Pattern::new(21);
    let mut rubbish = Vec::new();
    for length in
        [0, 1, 3, 4, 15, 16, 31, 32, 63, 64, 91, 92, 93, 147, 148, 149, 1472, 9000, 65_507]
    {
        for kind in 0..=5 {
            let mut octets = pattern.octets(length);
            octets.iter_mut().zip([kind, 0, 0, 0]).for_each(|(place, octet)| *place = octet);
            rubbish.push(octets);
        }
        let mut octets = pattern.octets(length);
        octets.iter_mut().zip(data).take(16).for_each(|(place, &octet)| *place = octet);
        rubbish.push(octets);
    }
    let before = scene.receivers().map(|(station, host, _)| standing(&station.status(host)));
    let witnesses = Witnesses::swear(&scene);
    scene.assert_dropped(&rubbish, 1);
    // The longest ones come in fragments, of which C's own wire sees more than one each.
    for capture in witnesses.at_devices {
        let mut capture = capture;
        while let Some(packet) = capture.take().unwrap() {
            assert!(packet.outgoing, "a packet was delivered: {packet:02x?}");
        }
    }
    let mut answer = [0; 2048];
    scene.c.set_nonblocking(true).unwrap();
    assert!(scene.c.recv(&mut answer).is_err(), "C was answered");
    let after = scene.receivers().map(|(station, host, _)| standing(&station.status(host)));
    assert_eq!(after, before);
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).assert_answers(56);
}

#[test]
fn trains_of_rubbish_are_counted_message_by_message() {
    let Some(scene) = scene() else { return };
    let messages = scene.conversation();
    let data = messages.iter().rev().find(|octets| octets.len() > 1000).unwrap();
    // A train of messages with a header that is known: one that came before, and others that are not authentic.
    let length = data.len();
    let count = 60_000 / length;
    let mut pattern = Pattern::new(22);
    let train: Vec<u8> = (0..count)
        .flat_map(|number| {
            let mut octets = pattern.octets(length);
            octets[..16].copy_from_slice(&data[..16]);
            octets[8..16].copy_from_slice(&(1_000_000 + number as u64).to_le_bytes());
            if number % 2 == 0 { octets } else { data.clone() }
        })
        .collect();
    let workers = scene.receivers().map(|(station, ..)| station.tunnel.worker().unwrap());
    sys::set_segment_size(&scene.c, i32::try_from(length).unwrap()).unwrap();
    let trains = vec![train; 20];
    let before = scene.receivers().map(|(station, host, _)| standing(&station.status(host)));
    scene.assert_trains_dropped(&trains, count as u64);
    let sizes = workers.map(resident);
    for _ in 0..5 {
        scene.assert_trains_dropped(&trains, count as u64);
    }
    for (size, worker) in sizes.into_iter().zip(workers) {
        assert!(resident(worker) < size + GROWTH, "{size} octets, and then {}", resident(worker));
    }
    for ((station, host, _), before) in scene.receivers().into_iter().zip(before) {
        let status = station.status(host);
        assert_eq!(standing(&status), before);
        assert!(dropped(&status) >= 6 * 20 * count as u64, "{status}");
    }
    let drops = scene.receivers().map(|(station, host, _)| {
        let status = station.status(host);
        ["replayed", "undecryptable", "unknown_receiver"].map(|reason| dropped_for(&status, reason))
    });
    // Half of each train came before and half is not authentic at one of the two; the other does not know the session.
    let half = 6 * 20 * (count as u64 / 2);
    assert!(
        drops.iter().any(|&[replayed, forged, _]| replayed >= half && forged >= half),
        "{drops:?}"
    );
    assert!(drops.iter().any(|&[_, _, unknown]| unknown >= 2 * half), "{drops:?}");
    sys::set_segment_size(&scene.c, 0).unwrap();
    Pinger::new(&scene.hosts.a, Family::V4.inner(2)).assert_answers(56);
}
