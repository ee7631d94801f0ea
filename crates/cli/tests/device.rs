//! `adit device` as scripts see it: texts, exit codes, JSON. Devices are made in namespaces of the
//! tests' own.
//!
//! ```text
//!   namespace of the test
//!   +-------------------------------------+
//!   |  lo     tun0, tap0 made by `adit`   |
//!   +-------------------------------------+
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails here fails the test")]

use std::fs::Permissions;
use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use device::{Builder, DeviceName, Mode};
use netlink::{Netns, Socket};
use serde_json::{Value, json};
use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;

/// Runs `adit device` with words; `+` stands for a space within one.
fn adit(arguments: &str) -> OutputAssert {
    Command::new(env!("CARGO_BIN_EXE_adit"))
        .arg("device")
        .args(arguments.split_whitespace().map(|word| word.replace('+', " ")))
        .env_remove("NO_COLOR")
        .assert()
}

fn shown(arguments: &str) -> Value {
    let output = adit(arguments).success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

fn text(arguments: &str) -> String {
    String::from_utf8(adit(arguments).success().get_output().stdout.clone()).unwrap()
}

fn open(name: &str, mode: Mode) -> Builder {
    Builder::new(DeviceName::parse(name).unwrap(), mode)
}

/// Runs `test` on a thread in a namespace of its own; the programs it starts are there too.
fn in_namespace(test: impl FnOnce(&mut Socket) + Send + 'static) {
    let namespace = match Netns::create() {
        Ok(namespace) => namespace,
        Err(error) => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no namespace: {error}");
            println!("skipped: cannot make a network namespace: {error}");
            return;
        }
    };
    let thread = std::thread::spawn(move || {
        namespace.enter().unwrap();
        test(&mut Socket::open().unwrap());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn help_names_the_four_commands() {
    adit("--help").success().stdout_eq(str![[r#"
Makes, deletes and shows TUN and TAP devices

Usage: adit device [OPTIONS] <COMMAND>

Commands:
  add   Makes a persistent device, which a user or a group can attach to without privilege
  del   Deletes a persistent device that nobody is attached to
  list  Lists the TUN and TAP devices of this network namespace
  show  Shows all that is known of one device

Options:
  -v, --verbose...  Says more; twice for even more
  -h, --help        Print help
  -V, --version     Print version

"#]]);
}

#[test]
fn a_name_that_the_kernel_would_cut_is_wrong_use() {
    adit("add verylonginterface0 --any-user").code(2).stderr_eq(str![[r#"
error: invalid value 'verylonginterface0' for '<NAME>': interface name "verylonginterface0" has 18 octets; the kernel allows 15

For more information, try '--help'.

"#]]);
    for name in ["a/b", "a+b", "..", "tun%d", "a:1"] {
        adit(&format!("show {name}")).code(2);
    }
}

#[test]
fn a_device_for_nobody_in_particular_is_wrong_use() {
    adit("add tun0").code(2).stdout_eq("").stderr_eq(str![[r#"
error: a persistent device without owner is open to every user who can open /dev/net/tun
hint: say who may attach with --user or --group, or say --any-user

"#]]);
    adit("add tun0 --any-user --user root").code(2);
    adit("add tun0 --user no-such-user-here").code(2).stderr_eq(str![[r#"
error: there is no user "no-such-user-here"

"#]]);
    adit("add tun0 --group 4294967295").code(2);
}

#[test]
fn wrong_values_are_wrong_use() {
    for arguments in [
        "add tun0 --any-user --mtu 67",
        "add tun0 --any-user --mtu 65536",
        "add tun0 --any-user --address 192.0.2.1/33",
        "add tun0 --any-user --address 10.1.1.1+peer+fd00::1",
        "add tun0 --any-user --mode vpn",
        "del",
        "show",
    ] {
        adit(arguments).code(2);
    }
}

#[test]
fn what_is_missing_or_of_another_kind_cannot_be_shown() {
    in_namespace(|_| {
        adit("show tun0").code(1).stderr_eq(str![[r#"
error: show device "tun0": there is no such interface

"#]]);
        adit("show lo").code(1).stderr_eq(str![[r#"
error: show device "lo": it is neither a TUN nor a TAP device

"#]]);
        adit("list").success().stdout_eq("").stderr_eq(str![[r#"
no TUN or TAP device in this network namespace

"#]]);
        adit("list --json").success().stdout_eq(str![[r#"
{"devices":[]}

"#]]);
    });
}

#[test]
fn an_added_device_is_listed_shown_and_deleted() {
    in_namespace(|netlink| {
        adit(
            "add tun0 --user root --group 54321 --mtu 1400 --up \
             --address 192.0.2.1/24 --address 10.1.1.1+peer+10.1.1.2/32 --address fd00:7::1/64",
        )
        .success()
        .stdout_eq("")
        .stderr_eq("");
        adit("show tun0").success().stdout_eq(str![[r#"
name        tun0
mode        tun
state       up, no carrier
mtu         1400
persistent  yes
for         user root in group 54321
attached    no
queues      one
headers     none
offload     none
address     192.0.2.1/24
address     10.1.1.1 peer 10.1.1.2/32
address     fd00:7::1/64

"#]]);
        adit("add tap0 --mode tap --any-user --multi-queue --vnet-hdr --pi").success();
        adit("list").success().stdout_eq(str![[r#"
NAME  MODE  STATE           MTU   FOR                       ATTACHED  ADDRESSES
tun0  tun   up, no carrier  1400  user root in group 54321  no        192.0.2.1/24, 10.1.1.1 peer 10.1.1.2/32, fd00:7::1/64
tap0  tap   down            1500  everyone                  no

"#]]);
        adit("del tap0").success();
        adit("del tun0 --mode tun").success();
        assert_eq!(netlink.link("tap0").unwrap(), None);
        assert_eq!(netlink.link("tun0").unwrap(), None);
    });
}

#[test]
fn a_device_is_one_json_object() {
    in_namespace(|_| {
        adit("add tap0 --mode tap --user 0 --multi-queue --vnet-hdr --address 192.0.2.1").success();
        let mut device = shown("show tap0 --json");
        let mac = device["mac"].take();
        assert_eq!(mac.as_str().unwrap().len(), "02:00:00:00:00:01".len());
        let expected = json!({
            "name": "tap0",
            "index": device["index"],
            "mode": "tap",
            "up": false,
            "carrier": false,
            "mtu": 1500,
            "mac": null,
            "addresses": ["192.0.2.1/32"],
            "persistent": true,
            "user": {"id": 0, "name": "root"},
            "group": null,
            "attached": false,
            "processes": [],
            "multi_queue": true,
            "queues": {"enabled": 0, "disabled": 0},
            "packet_information": false,
            "vnet_header": true,
            "offload": [],
        });
        assert_eq!(device, expected);
        let mut list = shown("list --json");
        list["devices"][0]["mac"].take();
        assert_eq!(list, json!({"devices": [expected]}));
    });
}

#[test]
fn who_is_attached_is_shown_with_queues_and_offload() {
    in_namespace(|_| {
        let device = open("tun0", Mode::Tun)
            .queues(NonZeroU16::new(2).unwrap())
            .vnet_hdr(true)
            .offload(device::Offload::ALL)
            .open()
            .unwrap();
        let text = text("show tun0");
        assert!(text.contains(&format!("attached    {} (", std::process::id())), "{text}");
        assert!(text.contains("persistent  no\n"), "{text}");
        assert!(text.contains("queues      several, 2 attached\n"), "{text}");
        assert!(text.contains("headers     virtio-net\n"), "{text}");
        assert!(text.contains("offload     checksum, tso4, tso6, tso-ecn"), "{text}");
        let shown = shown("show tun0 --json");
        assert_eq!(shown["attached"], json!(true));
        assert_eq!(shown["processes"][0]["pid"], json!(std::process::id()));
        drop(device);
    });
}

#[test]
fn reading_needs_no_privilege_and_adding_says_that_it_does() {
    in_namespace(|_| {
        adit("add tun0 --user root --up").success();
        let program = copy_for_everyone();
        let run = |arguments: &[&str]| {
            std::process::Command::new(program.join("adit"))
                .arg("device")
                .args(arguments)
                .uid(54_321)
                .gid(54_321)
                .output()
                .unwrap()
        };
        let shown = run(&["show", "tun0"]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains("for         user root\n"));
        assert!(run(&["list", "--json"]).status.success());
        let added = run(&["add", "tun1", "--user", "root"]);
        assert_eq!(added.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&added.stderr);
        assert!(stderr.contains("\nhint: "), "{stderr}");
        std::fs::remove_dir_all(program).unwrap();
    });
}

/// A directory that everyone can enter, with the program in it.
///
/// Another process copies: a program that this one has open for writing could not be run, and a
/// test that starts a program at that moment would keep it open.
fn copy_for_everyone() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("adit-cli-device-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    Command::new("cp").arg(env!("CARGO_BIN_EXE_adit")).arg(&directory).assert().success();
    directory
}

#[test]
fn a_device_in_use_is_not_deleted() {
    in_namespace(|netlink| {
        for (arguments, multi_queue) in [("", false), ("--multi-queue", true)] {
            adit(&format!("add tun0 --any-user {arguments}")).success();
            let held = open("tun0", Mode::Tun).multi_queue(multi_queue).open().unwrap();
            let output = adit("del tun0").code(1);
            let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            let holder = format!("process {} (", std::process::id());
            assert!(
                stderr
                    .starts_with("error: delete device \"tun0\": attach to TUN device \"tun0\": "),
                "{stderr}"
            );
            assert!(stderr.contains(&holder), "{stderr}");
            assert!(netlink.link("tun0").unwrap().unwrap().tun.unwrap().persistent);
            drop(held);
            delete_when_released("tun0");
        }
    });
}

/// Deletes a device that this process has closed: a child that another test is starting has the
/// descriptor too, until it becomes the program.
fn delete_when_released(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !adit(&format!("del {name}")).get_output().status.success() {
        assert!(Instant::now() < deadline, "{name} is still in use");
    }
}

#[test]
fn what_is_not_the_device_meant_is_not_deleted() {
    in_namespace(|netlink| {
        adit("add tun0 --any-user").success();
        adit("del tun0 --mode tap").code(1).stderr_eq(str![[r#"
error: delete device "tun0": attach to TAP device "tun0": it is a TUN device
hint: "adit device show NAME" tells how the device was made

"#]]);
        adit("add tun0 --any-user").code(1).stderr_eq(str![[r#"
error: create TUN device "tun0": an interface of that name exists

"#]]);
        adit("del tun1").code(1).stderr_eq(str![[r#"
error: delete device "tun1": attach to TUN device "tun1": there is no such device

"#]]);
        adit("del lo").code(1).stderr_eq(str![[r#"
error: delete device "lo": attach to TUN device "lo": it is an interface of another kind

"#]]);
        assert!(netlink.link("tun0").unwrap().is_some());
        assert_eq!(netlink.link("tun1").unwrap(), None);
    });
}

#[test]
fn a_device_that_cannot_get_its_address_is_deleted_again() {
    in_namespace(|netlink| {
        adit("add tun0 --any-user --address 192.0.2.1/24 --address 192.0.2.1/24")
            .code(1)
            .stderr_eq(str![[r#"
error: add address 192.0.2.1/24 dev tun0: File exists (os error 17)[..]

"#]]);
        assert_eq!(netlink.link("tun0").unwrap(), None);
    });
}
