//! What tcpdump thinks of the packets at a device without offload.
//!
//! ```text
//!   host A                     host B
//!   adit0 .................... adit0 offload = false
//!   eth0  -------------------- eth0        \
//!                                           tcpdump -vvv
//! ```

use std::time::Duration;

use crate::rig::pair::{End, Family, Pair};
use crate::rig::program::{available, may_change_users, spawn};
use crate::rig::soon;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::DEVICE;
use crate::rig::udp::assert_sizes_echo;

/// What one packet carries at most.
const MTU: usize = 1472;

#[test]
fn tcpdump_finds_no_wrong_checksum() {
    // Started by root, it changes its user even to itself.
    if !available("tcpdump") || !may_change_users() {
        return;
    }
    let Some(pair) = Pair::with(End::A, End::B.device("offload = false")) else { return };
    let (a, b) = (&pair.a.host, &pair.b.host);
    // -l and --immediate-mode: what was seen is written at once. -B and -s: a queue of 8 MiB with
    // places for whole packets and no longer ones. -Z: it keeps its user.
    let mut arguments = vec!["-i", DEVICE, "-nn", "-vvv", "-l", "--immediate-mode"];
    arguments.extend(["-B", "8192", "-s", "2000", "-Z", "root"]);
    let mut tcpdump = spawn(b, "tcpdump", &arguments);
    tcpdump.wait_for_line("listening on adit0", soon()).unwrap();
    for inner in Family::BOTH {
        assert_sizes_echo(a, b, inner.inner(2), [0, 1, 700, 1400], || {});
        assert_transfers(a, b, inner.inner(2), 200_000);
    }
    let dumped = |needle: &str, least: usize| {
        let enough =
            soon().wait_until(|| (tcpdump.stdout().matches(needle).count() >= least).then_some(()));
        enough.unwrap_or_else(|error| panic!("{needle}: {error}: {}", tcpdump.stdout()));
    };
    dumped("Flags [F", 4);
    dumped("[udp sum ok]", 2 * 8);
    dumped("(correct)", 2 * 2 * 200_000 / MTU);
    tcpdump.stop(Duration::from_secs(5)).unwrap();
    let said = tcpdump.stdout();
    let complaints = ["incorrect", "[bad ", "bad cksum", "[|"];
    let wrong: Vec<_> =
        said.lines().filter(|line| complaints.iter().any(|part| line.contains(part))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
