//! A TAP device as a port of a bridge.
//!
//! ```text
//!  adit0 (tap) ── br0 ── left ───── right
//! ```

use netlink::plan::{Device, Operation, PlanError, Reverted};

use super::*;
use crate::namespace::index;

fn bridged(bridge: &str) -> Desired {
    Desired {
        device: "adit0".to_owned(),
        mtu: 1420,
        up: true,
        bridge: Some(bridge.to_owned()),
        ..Desired::default()
    }
}

fn prepare(host: &mut Host) {
    let (left, _) = pair(host.socket());
    host.socket().add_bridge("br0").unwrap();
    let bridge = index(host.socket(), "br0");
    host.socket().set_master(left, Some(bridge)).unwrap();
    host.socket().set_up(bridge, true).unwrap();
    ip("tuntap add adit0 mode tap");
    ip("link set adit0 addrgenmode none");
}

fn ports() -> Vec<String> {
    let ports = ip_list("link show master br0");
    ports.iter().map(|port| port["ifname"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_tap_device_is_a_port_of_the_bridge_until_the_plan_is_undone() {
    on_host(|host| {
        prepare(host);
        let before = snapshot_of_links();
        let operations = plan_for(host, &bridged("br0"), &[]);
        let bridge = Device { index: index(host.socket(), "br0").0, name: "br0".to_owned() };
        assert!(
            matches!(&operations[1], Operation::SetMaster { bridge: to, .. } if *to == bridge),
            "{operations:?}"
        );
        operations.iter().for_each(|operation| host.apply(operation).unwrap());
        assert_eq!(plan_for(host, &bridged("br0"), &[]), []);
        assert_eq!(ports(), ["left", "adit0"]);
        // A bridge takes the least MTU of its ports.
        assert_eq!(ip_show("link show br0")["mtu"], 1420);

        for operation in operations.iter().rev() {
            assert_eq!(host.revert(&operation.undo().unwrap()).unwrap(), Reverted::Done);
        }
        assert_eq!(ports(), ["left"]);
        assert_eq!(snapshot_of_links(), before);
    });
}

#[test]
fn a_device_that_someone_moved_to_another_bridge_stays_there() {
    on_host(|host| {
        prepare(host);
        let operations = plan_for(host, &bridged("br0"), &[]);
        operations.iter().for_each(|operation| host.apply(operation).unwrap());
        host.socket().add_bridge("br1").unwrap();
        ip("link set adit0 master br1");
        let undo = operations[1].undo().unwrap();
        let found = "br1".to_owned();
        assert_eq!(host.revert(&undo).unwrap(), Reverted::ChangedSince { found });
        assert_eq!(ip_show("link show adit0")["master"], "br1");
        let actual = host.read(&bridged("br0"), &[]).unwrap();
        let expected =
            PlanError::PortTaken { device: "adit0".to_owned(), master: "br1".to_owned() };
        assert_eq!(plan(&bridged("br0"), &actual), Err(expected));
        ip("link set adit0 nomaster");
        assert_eq!(host.revert(&undo).unwrap(), Reverted::NotThere);
    });
}

#[test]
fn neither_a_tun_device_nor_another_link_makes_a_bridge() {
    on_host(|host| {
        prepare(host);
        ip("tuntap add adit1 mode tun");
        let mut refused = |desired: &Desired| {
            let actual = host.read(desired, &[]).unwrap();
            plan(desired, &actual).unwrap_err()
        };
        let (device, bridge) = ("adit1".to_owned(), "br0".to_owned());
        assert_eq!(
            refused(&Desired { device: device.clone(), ..bridged("br0") }),
            PlanError::TunInBridge { device, bridge }
        );
        let (bridge, kind) = ("left".to_owned(), "of kind veth".to_owned());
        assert_eq!(refused(&bridged("left")), PlanError::NotBridge { bridge, kind });
        let bridge = "br7".to_owned();
        assert_eq!(refused(&bridged("br7")), PlanError::NoBridge { bridge });
    });
}

/// What ip(8) says of the links, save what changes by itself.
fn snapshot_of_links() -> Vec<Value> {
    let kept = |link: Value| {
        serde_json::json!([link["ifname"], link["mtu"], link["master"], flags(&link)])
    };
    ip_list("link show").into_iter().map(kept).collect()
}
