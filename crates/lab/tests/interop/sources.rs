//! An inner source address that the sender does not own is refused and counted.
//!
//! ```text
//!   host A: refuses               host B: has 192.0.2.99, fd00:7::99 as well
//!   wg0   192.0.2.1 ............. wg0   192.0.2.2, fd00:7::2
//!   eth0  10.1.0.1 -------------- eth0  10.1.0.2
//! ```

use std::net::{IpAddr, SocketAddr};

use crate::pair::{Pair, for_each_meeting};
use crate::party::DEVICE;
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::{soon, state, udp};

const NOT_ALLOWED: &str = "source not allowed for the peer";

/// What A refuses.
const FORGED: u64 = 10;

fn forge(pair: &Pair, source: IpAddr, target: SocketAddr) {
    let forger = udp::bind(&pair.hosts.b, (source, 0).into());
    for _ in 0..FORGED {
        forger.send_to(b"forged", target).unwrap();
    }
}

#[test]
fn a_source_that_the_peer_does_not_own_is_refused_and_counted() {
    for_each_meeting(|kinds| {
        let pair = Pair::up(kinds);
        let (a, b) = (&pair.hosts.a, &pair.hosts.b);
        Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
        for (family, length) in Family::BOTH.into_iter().zip([32, 128]) {
            state::add_address(b, DEVICE, &format!("{}/{length}", family.inner(99)));
            let listener = udp::bind(a, (family.inner(1), 6000).into());
            forge(&pair, family.inner(99), listener.local_addr().unwrap());
            // Everything is in order, so whatever was forged came before this.
            let genuine = udp::bind(b, (family.inner(2), 0).into());
            genuine.send_to(b"genuine", listener.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 100];
            let (count, source) = listener.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], source.ip()), (&b"genuine"[..], family.inner(2)));
        }
        let refused = || {
            let traffic = pair.a.traffic()?;
            Some(traffic.from_peers.dropped(NOT_ALLOWED))
        };
        if refused().is_some() {
            let counted = || (refused() == Some(2 * FORGED)).then_some(());
            soon().wait_until(counted).unwrap_or_else(|error| panic!("{error}: {:?}", refused()));
        }
    });
}
