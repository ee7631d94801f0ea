//! Devices are made, attached to and refused, each for the right reason.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

mod support;

use std::num::NonZeroU16;

use device::{
    Builder, DeviceName, Driver, MAX_QUEUES, Mode, Offload, OpenError, Presence, driver, holders,
    persist, transmit_offload,
};
use support::{configure, in_namespace, index, name, observe, recv_sent_again, socket, tun};

const TWO: NonZeroU16 = NonZeroU16::new(2).unwrap();

#[test]
fn a_device_vanishes_with_its_last_queue() {
    in_namespace(|netlink| {
        let device = tun("dev0").open().unwrap();
        assert!(device.created());
        assert_eq!(device.name(), &name("dev0"));
        assert!(netlink.link("dev0").unwrap().is_some());
        let queues = device.into_queues();
        assert!(netlink.link("dev0").unwrap().is_some());
        drop(queues);
        assert_eq!(netlink.link("dev0").unwrap(), None);
    });
}

#[test]
fn a_pattern_gets_the_lowest_free_number() {
    in_namespace(|_| {
        let pattern = DeviceName::pattern("dev%d").unwrap();
        let first = Builder::new(pattern.clone(), Mode::Tun).open().unwrap();
        let second = Builder::new(pattern, Mode::Tap).queues(TWO).open().unwrap();
        assert_eq!(first.name(), &name("dev0"));
        assert_eq!(second.name(), &name("dev1"));
    });
}

#[test]
fn exclusive_creation_refuses_what_exists() {
    in_namespace(|_| {
        let builder = tun("dev0").presence(Presence::Create);
        persist::add(&builder, persist::Access::User(1)).unwrap();
        let error = builder.open().unwrap_err();
        assert!(matches!(error, OpenError::Exists { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "create TUN device \"dev0\": an interface of that name exists"
        );
    });
}

#[test]
fn attaching_refuses_what_does_not_exist_and_does_not_create_it() {
    in_namespace(|netlink| {
        let error = tun("dev0").presence(Presence::Attach).open().unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
        assert_eq!(netlink.link("dev0").unwrap(), None);
    });
}

#[test]
fn a_persistent_device_keeps_its_addresses_and_is_deleted_by_name() {
    in_namespace(|netlink| {
        let access = persist::Access::UserInGroup(1000, 1001);
        persist::add(&tun("dev0"), access).unwrap();
        configure(netlink, &name("dev0"));
        let tun_link = netlink.link("dev0").unwrap().unwrap().tun.unwrap();
        assert!(tun_link.persistent);
        assert_eq!((tun_link.owner, tun_link.group), (Some(1000), Some(1001)));

        let device = tun("dev0").presence(Presence::Attach).open().unwrap();
        assert!(!device.created());
        let packet = recv_sent_again(&device.queues()[0], &socket(), b"kept");
        assert!(packet.ends_with(b"kept"));
        drop(device);

        persist::delete(&tun("dev0")).unwrap();
        assert_eq!(netlink.link("dev0").unwrap(), None);
    });
}

#[test]
fn an_opened_device_can_be_made_persistent_and_back() {
    in_namespace(|netlink| {
        let device = tun("dev0").open().unwrap();
        device.set_persistent(true).unwrap();
        drop(device);
        assert!(netlink.link("dev0").unwrap().is_some());
        let device = tun("dev0").open().unwrap();
        assert!(!device.created());
        device.set_persistent(false).unwrap();
        drop(device);
        assert_eq!(netlink.link("dev0").unwrap(), None);
    });
}

#[test]
fn a_device_of_the_other_mode_is_refused_by_name() {
    in_namespace(|_| {
        let _tap = Builder::new(name("dev0"), Mode::Tap).open().unwrap();
        let error = tun("dev0").open().unwrap_err();
        assert!(matches!(error, OpenError::WrongMode { actual: Mode::Tap, .. }), "{error:?}");
    });
}

#[test]
fn a_mismatch_of_queues_is_refused_both_ways() {
    in_namespace(|_| {
        let _one = tun("dev0").open().unwrap();
        let error = tun("dev0").queues(TWO).open().unwrap_err();
        assert_eq!(error.to_string(), "attach to TUN device \"dev0\": it was made for one queue");
        let _many = tun("dev1").queues(TWO).open().unwrap();
        let error = tun("dev1").open().unwrap_err();
        assert_eq!(
            error.to_string(),
            "attach to TUN device \"dev1\": it was made for several queues"
        );
    });
}

#[test]
fn an_interface_of_another_driver_is_refused() {
    in_namespace(|netlink| {
        netlink.add_bridge("dev0").unwrap();
        let error = tun("dev0").open().unwrap_err();
        let OpenError::NotTun { driver, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(driver, "bridge");
        let error = tun("lo").open().unwrap_err();
        assert!(matches!(error, OpenError::NotTun { .. }), "{error:?}");
    });
}

#[test]
fn a_busy_device_is_refused_and_its_holder_named() {
    in_namespace(|_| {
        let _held = tun("dev0").open().unwrap();
        let error = tun("dev0").open().unwrap_err();
        let OpenError::Busy { holders, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0].pid, std::process::id());
        let command = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(holders[0].command, command.trim());
    });
}

#[test]
fn a_released_device_has_no_holder() {
    in_namespace(|_| {
        persist::add(&tun("held0"), persist::Access::User(1)).unwrap();
        let is_held = || holders().iter().any(|(device, _)| device == "held0");
        assert!(!is_held());
        let device = tun("held0").open().unwrap();
        assert!(is_held());
        drop(device);
        assert!(!is_held());
    });
}

#[test]
fn a_holder_with_threads_in_several_namespaces_is_uncertain() {
    in_namespace(|_| {
        // The process of the tests has other threads in the namespace that it was started in.
        let _held = tun("held1").open().unwrap();
        let holders = holders();
        let (_, holder) = holders.iter().find(|(device, _)| device == "held1").unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.only_here);
    });
}

#[test]
fn a_multi_queue_device_that_others_use_is_refused_to_whom_asks() {
    in_namespace(|_| {
        let builder = tun("dev0").multi_queue(true).observe(observe);
        let first = builder.open().unwrap();
        let error = builder.open().unwrap_err();
        assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
        // Whoever does not ask takes a part of the flows without a word.
        let second = tun("dev0").multi_queue(true).open().unwrap();
        assert_eq!(observe(&name("dev0")).unwrap().queues, 2);
        drop((first, second));
        assert_eq!(builder.queues(TWO).open().unwrap().queues().len(), 2);
    });
}

#[test]
fn a_device_has_at_most_as_many_queues_as_the_kernel_allows() {
    in_namespace(|netlink| {
        let too_many = NonZeroU16::new(MAX_QUEUES + 1).unwrap();
        let error = tun("dev0").queues(too_many).open().unwrap_err();
        assert!(matches!(error, OpenError::TooManyQueues { .. }), "{error:?}");
        assert_eq!(netlink.link("dev0").unwrap(), None);
        let most = NonZeroU16::new(MAX_QUEUES).unwrap();
        assert_eq!(tun("dev0").queues(most).open().unwrap().queues().len(), 256);
    });
}

#[test]
fn attaching_without_offload_clears_that_of_the_previous_user() {
    in_namespace(|_| {
        let device =
            tun("dev0").vnet_hdr(true).offload(Offload::ALL).persistent(true).open().unwrap();
        assert_eq!(transmit_offload(&name("dev0")).unwrap(), device.offload());
        assert!(device.offload().checksum && device.offload().tso4);
        drop(device);
        assert_ne!(transmit_offload(&name("dev0")).unwrap(), Offload::NONE);
        let device = tun("dev0").offload(Offload::ALL).open().unwrap();
        assert_eq!(device.offload(), Offload::NONE);
        assert_eq!(transmit_offload(&name("dev0")).unwrap(), Offload::NONE);
    });
}

#[test]
fn offload_that_cannot_stand_alone_falls_back_to_what_can() {
    in_namespace(|_| {
        let only = |offload| tun("dev0").vnet_hdr(true).offload(offload).open().unwrap().offload();
        let checksum = Offload { checksum: true, ..Offload::NONE };
        assert_eq!(only(checksum), checksum);
        assert_eq!(only(Offload { uso6: true, ..checksum }), checksum);
        assert_eq!(only(Offload { tso4: true, ..Offload::NONE }), Offload::NONE);
    });
}

#[test]
fn attaching_resets_the_header_size_of_the_previous_user() {
    in_namespace(|netlink| {
        let builder = tun("dev0").vnet_hdr(true).persistent(true);
        let device = builder.open().unwrap();
        support::sys::set_vnet_header_size(&device.queues()[0], 12).unwrap();
        drop(device);
        let device = builder.open().unwrap();
        configure(netlink, device.name());
        let packet = recv_sent_again(&device.queues()[0], &socket(), b"ten octets");
        assert_eq!(packet.len(), 28 + 10);
        assert_eq!(packet[0], 0x45);
    });
}

#[test]
fn anyone_may_ask_who_drives_an_interface() {
    in_namespace(|netlink| {
        let _tun = tun("dev0").open().unwrap();
        let _tap = Builder::new(name("dev1"), Mode::Tap).open().unwrap();
        netlink.add_bridge("dev2").unwrap();
        assert_eq!(driver(&name("dev0")).unwrap(), Driver::Tun(Mode::Tun));
        assert_eq!(driver(&name("dev1")).unwrap(), Driver::Tun(Mode::Tap));
        assert_eq!(driver(&name("dev2")).unwrap(), Driver::Other("bridge".into()));
        assert_eq!(driver(&name("dev3")).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        let _ = index(netlink, &name("dev2"));
    });
}
