//! `adit down`, and tunnels that were killed.
//!
//! ```text
//!   host A: adit0 with a default route, forwarding and excluded networks; default routes with metrics
//! ```

use lab::Host;
use rustix::process::Signal;

use crate::rig::pair::{End, hosts};
use crate::rig::program;
use crate::rig::sh::{assert_same, everything, sh};
use crate::rig::tunnel::{DEVICE, Files, Tunnel, adit_in};
use crate::rig::{soon, state};

const NETWORK: &str = "default-route = true\nforward = true\nmasquerade = true\n\
    exclude = [\"198.51.100.0/24\", \"2001:db8:5::/48\"]";

fn toml() -> String {
    End::A.network(NETWORK).toml().replace("udp://10.1.0.2:4740", "udp://203.0.113.9:4740")
}

fn host() -> Option<lab::TwoHosts> {
    if !program::available("ip") || !program::available("nft") {
        return None;
    }
    let hosts = hosts()?;
    let routers = "ip route add default via 10.1.0.2 dev eth0 metric 100; \
        ip route add default via 10.1.0.3 dev eth0 metric 200; \
        ip -6 route add default via fd01::2 dev eth0 metric 100";
    sh(&hosts.a, routers);
    Some(hosts)
}

/// Waits until the device is gone, which the kernel does after the process is.
fn wait_for_no_device(host: &Host) {
    soon().wait_until(|| state::link(host, DEVICE).is_none().then_some(())).unwrap();
}

#[test]
fn down_ends_a_running_tunnel() {
    let Some(hosts) = host() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &toml());
    let down = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    let ended = tunnel.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
    let again = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(again.code, Some(1), "{}", again.said);
    let expected = "error: tunnel \"a\" is not running, and has left nothing behind";
    assert!(again.said.contains(expected), "{}", again.said);
}

#[test]
fn down_takes_back_what_a_killed_tunnel_left() {
    let Some(hosts) = host() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &toml());
    let _ = tunnel.end(Signal::KILL);
    wait_for_no_device(&hosts.a);
    assert_eq!(sh(&hosts.a, "sysctl -n net.ipv4.ip_forward"), "1\n");
    let down = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn the_next_tunnel_of_that_name_takes_back_what_a_killed_one_left() {
    let Some(hosts) = host() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let _ = Tunnel::up(&hosts.a, &files, "a", &toml()).end(Signal::KILL);
    wait_for_no_device(&hosts.a);
    let mut tunnel = Tunnel::start(&hosts.a, &files, "a", &toml());
    tunnel.wait_for("an earlier tunnel \"a\" was killed");
    tunnel.wait_for("is up");
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn what_someone_has_changed_since_is_left_alone_and_said() {
    let Some(hosts) = host() else { return };
    let files = Files::new();
    sh(&hosts.a, "sysctl -w net.ipv4.conf.eth0.rp_filter=1");
    let toml = End::A.network("routes = [\"10.1.0.77/32\"]\nforward = true").toml();
    let _ = Tunnel::up(&hosts.a, &files, "a", &toml).end(Signal::KILL);
    wait_for_no_device(&hosts.a);
    // The neighbour may answer directly, so the check of the way back is loose; now it is off.
    assert_eq!(sh(&hosts.a, "sysctl -n net.ipv4.conf.eth0.rp_filter"), "2\n");
    sh(&hosts.a, "sysctl -w net.ipv4.conf.eth0.rp_filter=0");
    let down = adit_in(&hosts.a, &files, &["down", "a"]);
    assert_eq!(down.code, Some(0), "{}", down.said);
    assert!(down.said.contains("rp_filter") && down.said.contains("left alone"), "{}", down.said);
    assert_eq!(sh(&hosts.a, "sysctl -n net.ipv4.conf.eth0.rp_filter"), "0\n");
    assert_eq!(sh(&hosts.a, "sysctl -n net.ipv4.ip_forward"), "0\n");
}

#[test]
fn a_name_whose_tunnel_is_running_is_refused() {
    let Some(hosts) = host() else { return };
    let files = Files::new();
    let first = Tunnel::up(&hosts.a, &files, "a", &End::A.toml());
    let before = everything(&hosts.a);
    let ended = Tunnel::fail(&hosts.a, &files, "a", &End::A.toml());
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let expected = format!("error: tunnel \"a\": process {} has it up", first.id());
    assert!(ended.said.contains(&expected), "{}", ended.said);
    assert!(ended.said.contains("hint: \"adit down a\""), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn a_journal_that_cannot_be_written_is_an_error_before_anything_is_changed() {
    let Some(hosts) = host() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    // A directory that takes no files, not even from root.
    files.replace_runtime_directory("/proc/self");
    let ended = Tunnel::fail(&hosts.a, &files, "a", &toml());
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("create journal /proc/self/a.journal"), "{}", ended.said);
    assert_same(&before, &everything(&hosts.a));
}
