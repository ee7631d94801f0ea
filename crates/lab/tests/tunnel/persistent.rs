//! A persistent device is as it was when the tunnel has ended.
//!
//! ```text
//!   host A                                   host B
//!   adit0 192.0.2.1/24, 198.51.100.1/32 .... adit0 192.0.2.2
//!     |   made before, MTU 1400
//!   eth0  10.1.0.1 ------------------------- eth0  10.1.0.2
//! ```

use rustix::process::Signal;

use crate::rig::pair::{End, Family, Pair, hosts};
use crate::rig::ping::assert_answers;
use crate::rig::state;
use crate::rig::tunnel::{DEVICE, add_device};

fn assert_is_left_as_it_was(options: &[&str]) {
    let Some(hosts) = hosts() else { return };
    let mut all_options = vec!["--mtu", "1400", "--address", "192.0.2.1/24"];
    all_options.extend(["--address", "198.51.100.1/32", "--address", "fd00:9::1/64"]);
    all_options.extend(options);
    add_device(&hosts.a, &all_options);
    let before = state::lasting(&hosts.a);
    let index = state::link(&hosts.a, DEVICE).unwrap().index;

    let end = End::A
        .device("mtu = 1300")
        .network("routes = [\"203.0.113.0/24\", \"fd00:20::/64\"]\nforward = true");
    let pair = Pair::between(hosts, end, End::B).unwrap();
    let device = state::link(&pair.a.host, DEVICE).unwrap();
    assert_eq!((device.index, device.mtu, device.up), (index, 1300, true));
    assert_ne!(state::lasting(&pair.a.host), before);
    for inner in Family::BOTH {
        assert_answers(&pair.b.host, inner.inner(1));
    }

    let ended = pair.a.tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    state::assert_same(&before, &state::lasting(&pair.a.host));
}

#[test]
fn a_persistent_device_that_was_down_is_left_as_it_was() {
    assert_is_left_as_it_was(&[]);
}

#[test]
fn a_persistent_device_that_was_up_is_left_as_it_was() {
    assert_is_left_as_it_was(&["--up"]);
}

#[test]
fn a_persistent_multi_queue_device_is_left_as_it_was() {
    assert_is_left_as_it_was(&["--up", "--multi-queue"]);
}
