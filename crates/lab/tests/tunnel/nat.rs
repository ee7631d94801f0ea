//! What comes from the tunnel leaves the gateway with an address of the gateway, and nothing else does.
//!
//! ```text
//!   host A                      host B: NAT                    host C
//!   adit0 192.0.2.1 ........... adit0
//!   eth0  10.1.0.1 ------------ eth0
//!                               eth1 198.51.100.2 and .42 ---- eth0 198.51.100.3: "from .2" or ".42"
//!                                    2001:db8:100::2 and ::42       198.51.100.4: "from 10.1.0.1"
//! ```

use lab::{Gateway, Host};
use rustix::process::Signal;

use crate::rig::gateway::{beside, hosts, inside, source_seen, up, uplink};
use crate::rig::pair::{End, Family};
use crate::rig::sh::{assert_same, everything, sh, try_sh};
use crate::rig::soon;
use crate::rig::tunnel::{Files, adit_in};

/// Rules of other people, with each program that makes some.
const THEIRS: &str = "nft add table inet theirs; \
    nft 'add chain inet theirs forward { type filter hook forward priority 5; policy accept; }'; \
    nft add rule inet theirs forward ip saddr 10.77.0.0/16 drop; \
    nft add table ip6 nat6; \
    nft 'add chain ip6 nat6 post { type nat hook postrouting priority srcnat; policy accept; }'; \
    nft add rule ip6 nat6 post ip6 saddr fd77::/64 masquerade; \
    iptables -A FORWARD -s 10.78.0.0/16 -j DROP; ip6tables -A FORWARD -s fd78::/64 -j DROP; \
    iptables -t nat -A POSTROUTING -s 10.78.0.0/16 -j MASQUERADE";

/// Addresses that the kernel does not choose by itself.
const ADDRESSES: &str = "ip address add 198.51.100.42/24 dev eth1; \
    ip address add 2001:db8:100::42/64 dev eth1 nodad preferred_lft 0";

const MASQUERADE: End = End::B.network("masquerade = true");

const SOURCE_NAT: End = End::B.network("source-nat = [\"198.51.100.42\", \"2001:db8:100::42\"]");

/// The rules of others, as the programs that made them print them.
fn theirs(b: &Host) -> String {
    sh(
        b,
        "nft list table inet theirs; nft list table ip6 nat6; \
         iptables -S; ip6tables -S; iptables -t nat -S; iptables-save -t nat | grep -v '^#'",
    )
}

fn assert_translates(hosts: &Gateway, family: Family, to: &str) {
    assert_eq!(source_seen(&hosts.a, &hosts.c, inside(family)).to_string(), to);
    // Beside the tunnel, and from the gateway itself.
    assert_eq!(source_seen(&hosts.a, &hosts.c, beside(family)), family.outer(1));
    assert_eq!(source_seen(&hosts.b, &hosts.c, inside(family)), uplink(family));
}

/// Waits until the table of the tunnel "b" is gone.
fn wait_for_no_table(b: &Host) {
    let gone = || try_sh(b, "nft list table inet adit-b").is_err().then_some(());
    soon().wait_until(gone).unwrap();
}

fn assert_gateway_translates(b: End, to: [&str; 2]) {
    let Some(hosts) = hosts() else { return };
    sh(&hosts.b, THEIRS);
    sh(&hosts.b, ADDRESSES);
    let (files, before, rules) = (Files::new(), everything(&hosts.b), theirs(&hosts.b));
    let (a, b) = up(&hosts, &files, b);
    for (family, to) in Family::BOTH.into_iter().zip(to) {
        assert_translates(&hosts, family, to);
    }
    assert_eq!(theirs(&hosts.b), rules);
    let ended = b.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    wait_for_no_table(&hosts.b);
    assert_eq!(theirs(&hosts.b), rules);
    assert_same(&before, &everything(&hosts.b));
    drop(a);
}

#[test]
fn masquerade_hides_the_tunnel_behind_the_address_of_the_uplink() {
    assert_gateway_translates(MASQUERADE, ["198.51.100.2", "2001:db8:100::2"]);
}

#[test]
fn source_nat_hides_the_tunnel_behind_the_addresses_that_are_given() {
    assert_gateway_translates(SOURCE_NAT, ["198.51.100.42", "2001:db8:100::42"]);
}

#[test]
fn source_nat_of_one_family_leaves_the_other_as_it_is() {
    let Some(hosts) = hosts() else { return };
    sh(&hosts.b, ADDRESSES);
    sh(&hosts.c, "ip route add fd00:7::/64 via 2001:db8:100::2");
    let (files, before) = (Files::new(), everything(&hosts.b));
    let (_a, b) = up(&hosts, &files, End::B.network("source-nat = \"198.51.100.42\""));
    assert_translates(&hosts, Family::V4, "198.51.100.42");
    assert_eq!(source_seen(&hosts.a, &hosts.c, inside(Family::V6)), Family::V6.inner(1));
    assert_eq!(b.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.b));
}

/// The kernel removes the table with the process that owns it; the rest is known from the journal.
#[test]
fn the_table_of_a_gateway_that_is_killed_is_gone() {
    let Some(hosts) = hosts() else { return };
    sh(&hosts.b, THEIRS);
    let (files, before, rules) = (Files::new(), everything(&hosts.b), theirs(&hosts.b));
    let (_a, b) = up(&hosts, &files, MASQUERADE);
    sh(&hosts.b, "nft list table inet adit-b");
    let _ = b.end(Signal::KILL);
    wait_for_no_table(&hosts.b);
    assert_eq!(theirs(&hosts.b), rules);
    let down = adit_in(&hosts.b, &files, &["down", "b"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    let same = || (everything(&hosts.b) == before).then_some(());
    soon().wait_until(same).unwrap_or(());
    assert_same(&before, &everything(&hosts.b));
}
