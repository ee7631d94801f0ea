//! The other side is socat: one packet or frame in one datagram, and nothing else.
//!
//! ```text
//!   host A                            host B
//!   adit0 192.0.2.1, fd00:7::1 ...... adit0 192.0.2.2, fd00:7::2
//!     |   adit                          |   socat
//!   eth0  10.1.0.1 ------------------ eth0  10.1.0.2
//! ```

use lab::{Capture, Filter, Process, TwoHosts};
use wire::ethernet::{self, Frame};

use crate::rig::pair::{End, Family, hosts};
use crate::rig::ping::Pinger;
use crate::rig::program::{available, spawn};
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::{DEVICE, Files, Tunnel};
use crate::rig::udp::assert_sizes_echo;
use crate::rig::{soon, state};

/// A's tunnel in `mode` and B's socat; the hosts stay until both have ended.
struct Mixed {
    a: Tunnel,
    socat: Process,
    _files: Files,
    hosts: TwoHosts,
}

fn mixed(mode: &'static str) -> Option<Mixed> {
    if !available("socat") {
        return None;
    }
    let hosts = hosts()?;
    let files = Files::new();
    let device = if mode == "tap" { "mode = \"tap\"" } else { "" };
    let a = Tunnel::up(&hosts.a, &files, "a", &End::A.device(device).toml());
    let tun = format!("TUN:192.0.2.2/24,tun-name={DEVICE},iff-no-pi,tun-type={mode},up");
    let socat = spawn(&hosts.b, "socat", &["UDP4-DATAGRAM:10.1.0.1:4740,bind=10.1.0.2:4740", &tun]);
    let is_up = || state::link(&hosts.b, DEVICE).filter(|link| link.up);
    soon().wait_until(is_up).unwrap_or_else(|error| panic!("{error}: {}", socat.stderr()));
    // socat knows nothing of the MTU below it.
    let mtu = state::link(&hosts.a, DEVICE).unwrap().mtu;
    state::change(&hosts.b, DEVICE, move |socket, device| socket.set_mtu(device, mtu));
    state::add_address(&hosts.b, DEVICE, "fd00:7::2/64");
    Some(Mixed { a, socat, _files: files, hosts })
}

fn assert_traffic_passes(mixed: &mut Mixed) {
    let TwoHosts { a, b } = &mixed.hosts;
    for inner in Family::BOTH {
        Pinger::new(a, inner.inner(2)).wait_for_answer();
        Pinger::new(b, inner.inner(1)).assert_answers(4000);
        assert_sizes_echo(a, b, inner.inner(2), [0, 1, 1000, 1400, 20_000], || {});
        assert_transfers(a, b, inner.inner(2), 1 << 20);
        assert_transfers(b, a, inner.inner(1), 1 << 20);
    }
    assert_eq!(mixed.socat.try_wait().unwrap(), None, "{}", mixed.socat.stderr());
    let traffic = mixed.a.traffic();
    assert_eq!(traffic.from_peers.dropped_in_all(), 0, "{traffic:?}");
}

#[test]
fn packets_pass_between_adit_and_socat() {
    let Some(mut mixed) = mixed("tun") else { return };
    assert_traffic_passes(&mut mixed);
}

#[test]
fn frames_pass_between_adit_and_socat_with_arp() {
    let Some(mut mixed) = mixed("tap") else { return };
    let mut capture = Capture::start(&mixed.hosts.b, DEVICE, &Filter::everything()).unwrap();
    assert_traffic_passes(&mut mixed);
    let mut asked = false;
    let answered = capture.find(soon(), |packet| {
        let is_arp = Frame::parse(&packet.octets).unwrap().ethertype() == ethernet::ARP;
        asked |= is_arp && !packet.outgoing;
        (is_arp && packet.outgoing && asked).then_some(())
    });
    answered.unwrap();
}
