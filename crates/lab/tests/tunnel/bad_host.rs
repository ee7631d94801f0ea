//! A host or a configuration that cannot be: a clear error before anything is changed.
//!
//! ```text
//!   host A   eth0 10.1.0.1/24, fd01::1/64; everything is compared before and after
//! ```

use crate::rig::pair::{End, hosts};
use crate::rig::program;
use crate::rig::sh::{assert_same, everything, sh};
use crate::rig::tunnel::{Files, Tunnel};

/// Tries to bring a tunnel up on a host that `prepare` made unfit, and expects `errors`.
fn refused(prepare: &str, toml: &str, errors: &[&str]) {
    if !program::available("ip") || !program::available("nft") {
        return;
    }
    let Some(hosts) = hosts() else { return };
    sh(&hosts.a, prepare);
    let (files, before) = (Files::new(), everything(&hosts.a));
    let ended = Tunnel::fail(&hosts.a, &files, "a", toml);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    for error in errors {
        assert!(ended.said.contains(error), "{error}: {}", ended.said);
    }
    assert_same(&before, &everything(&hosts.a));
}

#[test]
fn a_bridge_for_a_tun_device() {
    let toml = End::A.network("bridge = \"br0\"").toml();
    refused("true", &toml, &["bridge", "TAP"]);
}

#[test]
fn a_bridge_that_is_not_there() {
    let toml = End::A.device("mode = \"tap\"").without_addresses().network("bridge = \"br0\"");
    refused("true", &toml.toml(), &["bridge \"br0\" is not there"]);
}

#[test]
fn a_bridge_that_is_none() {
    let toml = End::A.device("mode = \"tap\"").without_addresses().network("bridge = \"eth0\"");
    refused("true", &toml.toml(), &["\"eth0\" is not a bridge but of kind veth"]);
}

#[test]
fn source_nat_with_an_address_that_the_host_lacks() {
    let toml = End::A.network("forward = true\nsource-nat = \"198.51.100.9\"").toml();
    refused("true", &toml, &["198.51.100.9"]);
}

#[test]
fn masquerade_and_source_nat_together() {
    let toml = End::A.network("masquerade = true\nsource-nat = \"10.1.0.1\"").toml();
    refused("true", &toml, &["masquerade", "source-nat"]);
}

#[test]
fn a_route_over_a_family_that_has_no_address() {
    let toml = End::A.network("routes = [\"fd00:20::/64\"]").toml();
    refused("true", &toml.replace(", \"fd00:7::1/64\"", ""), &["fd00:20::/64", "IPv6"]);
}

#[test]
fn an_endpoint_without_a_way() {
    let toml = End::A.network("default-route = true").toml();
    let far = toml.replace("udp://10.1.0.2:4740", "udp://203.0.113.9:4740");
    refused("true", &far, &["endpoint 203.0.113.9 lies in 128.0.0.0/1 and has no route to keep"]);
}

#[test]
fn a_name_in_use_by_a_device_that_is_not_ours() {
    let prepare = "ip link add adit0 type veth peer name other";
    refused(prepare, &End::A.toml(), &["\"adit0\"", "interface of another kind"]);
}

#[test]
fn a_route_that_is_taken() {
    let toml = End::A.network("routes = [\"203.0.114.0/24\"]").toml();
    refused("ip route add 203.0.114.0/24 dev eth0", &toml, &["203.0.114.0/24 already by \"eth0\""]);
}

#[test]
fn a_network_that_is_another_links() {
    let prepare =
        "ip link add tun9 type veth peer name other; ip address add 192.0.2.9/24 dev tun9";
    refused(prepare, &End::A.toml(), &["192.0.2.0/24 already by \"tun9\""]);
}

#[test]
fn a_table_of_our_name_that_is_somebody_elses() {
    let toml = End::A.network("forward = true").toml();
    refused("nft add table inet adit-a", &toml, &["inet adit-a"]);
}

/// As in most containers: settings can be read and not written.
#[test]
fn settings_that_are_read_only() {
    if !program::available("ip") || !program::available("unshare") {
        return;
    }
    let Some(hosts) = hosts() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let file = files.write("a", &End::A.network("forward = true\nmasquerade = true").toml());
    let adit = lab::binary().unwrap();
    let line = format!(
        "unshare -m sh -c 'mount -t proc proc /proc && mount --bind /proc/sys /proc/sys && \
         mount -o remount,bind,ro /proc/sys && exec {} up {}' 2>&1; test $? = 1",
        adit.display(),
        file.display()
    );
    let runtime = files.runtime_directory();
    let said = sh(&hosts.a, &format!("export RUNTIME_DIRECTORY={}; {line}", runtime.display()));
    assert!(said.contains("write sysctl net.ipv4.ip_forward"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_same(&before, &everything(&hosts.a));
}
