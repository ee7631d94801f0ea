//! Who may do what with a device: threads without privilege, and a node of the tests' own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

mod support;

use device::persist::{Access, add};
use device::{Builder, Device, OpenError, Presence};
use netlink::Netns;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use support::{Node, in_namespace, observe, tun};

const ADA: u32 = 54_001;
const BOB: u32 = 54_002;
const STAFF: u32 = 54_100;
const OTHERS: u32 = 54_200;

/// Opens with the node of the test as the user, in the namespace of the calling thread.
fn open_as(user: u32, group: u32, builder: &Builder, node: &Node) -> Result<Device, OpenError> {
    let builder = builder.clone().node(node.path()).observe(observe);
    let namespace = Netns::current().unwrap();
    let thread = std::thread::spawn(move || {
        namespace.enter().unwrap();
        set_thread_groups(&[]).unwrap();
        set_thread_gid(Gid::from_raw(group)).unwrap();
        set_thread_uid(Uid::from_raw(user)).unwrap();
        builder.open()
    });
    thread.join().unwrap()
}

#[test]
fn creating_needs_privilege() {
    in_namespace(|_| {
        let node = Node::create(0o666);
        let error =
            open_as(ADA, STAFF, &tun("dev0").presence(Presence::Create), &node).unwrap_err();
        assert!(matches!(error, OpenError::NotPermitted { .. }), "{error:?}");
        assert_eq!(error.to_string(), "create TUN device \"dev0\"");
        let error = open_as(ADA, STAFF, &tun("dev0"), &node).unwrap_err();
        assert!(matches!(error, OpenError::NotPermitted { .. }), "{error:?}");
    });
}

#[test]
fn the_owner_attaches_and_another_user_is_refused_and_told_who_owns_it() {
    in_namespace(|_| {
        let node = Node::create(0o666);
        add(&tun("dev0"), Access::User(ADA)).unwrap();
        let error = open_as(BOB, STAFF, &tun("dev0"), &node).unwrap_err();
        let OpenError::NotOwner { owner, group, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*owner, *group), (Some(ADA), None));
        let device = open_as(ADA, OTHERS, &tun("dev0"), &node).unwrap();
        assert!(!device.created());
    });
}

#[test]
fn a_group_lets_its_members_attach() {
    in_namespace(|_| {
        let node = Node::create(0o666);
        add(&tun("dev0"), Access::Group(STAFF)).unwrap();
        let error = open_as(ADA, OTHERS, &tun("dev0"), &node).unwrap_err();
        assert!(matches!(error, OpenError::NotOwner { group: Some(STAFF), .. }), "{error:?}");
        drop(open_as(ADA, STAFF, &tun("dev0"), &node).unwrap());
        drop(open_as(BOB, STAFF, &tun("dev0"), &node).unwrap());
    });
}

#[test]
fn with_user_and_group_both_must_match() {
    in_namespace(|_| {
        let node = Node::create(0o666);
        add(&tun("dev0"), Access::UserInGroup(ADA, STAFF)).unwrap();
        for (user, group) in [(ADA, OTHERS), (BOB, STAFF)] {
            let error = open_as(user, group, &tun("dev0"), &node).unwrap_err();
            assert!(matches!(error, OpenError::NotOwner { .. }), "{error:?}");
        }
        drop(open_as(ADA, STAFF, &tun("dev0"), &node).unwrap());
    });
}

#[test]
fn a_device_without_owner_and_group_is_open_to_everyone() {
    in_namespace(|_| {
        let node = Node::create(0o666);
        add(&tun("dev0"), Access::AnyUser).unwrap();
        drop(open_as(BOB, OTHERS, &tun("dev0"), &node).unwrap());
    });
}

#[test]
fn the_permissions_of_the_node_come_first() {
    in_namespace(|_| {
        let node = Node::create(0o600);
        add(&tun("dev0"), Access::User(ADA)).unwrap();
        let error = open_as(ADA, STAFF, &tun("dev0"), &node).unwrap_err();
        assert!(matches!(error, OpenError::NodeForbidden { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("open \"{}\"", node.path().display()));
    });
}

#[test]
fn a_missing_or_foreign_node_is_told_apart() {
    let open = |node: &str| tun("dev0").presence(Presence::Create).node(node).open().unwrap_err();
    let missing = open("/nonexistent/tun");
    assert!(matches!(missing, OpenError::NodeMissing { .. }), "{missing:?}");
    for node in ["/dev/null", "/dev/zero"] {
        let foreign = open(node);
        assert!(matches!(foreign, OpenError::NodeForeign { .. }), "{foreign:?}");
    }
}
