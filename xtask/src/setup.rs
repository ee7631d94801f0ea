//! `cargo xtask setup`: the programs that tests and measurements run, most of them as Debian packages.

mod boringtun;
mod unpacked;

use std::process::Command;

use crate::failure::Failure;
use crate::program;

/// A Debian package.
struct Package {
    name: &'static str,
    /// A program of it, by its path if it is in no usual folder, whose absence tells that the package is
    /// missing.
    program: &'static str,
    why: &'static str,
}

/// Everything that is needed, and nothing else.
const PACKAGES: [Package; 16] = [
    Package {
        name: "iproute2",
        program: "ip",
        why: "`ip -j` reads the network back without our own netlink code",
    },
    Package {
        name: "nftables",
        program: "nft",
        why: "`nft -j` reads tables and rules back without our own netlink code",
    },
    Package {
        name: "iperf3",
        program: "iperf3",
        why: "the load of measurements and throughput tests",
    },
    Package {
        name: "socat",
        program: "socat",
        why: "another program that carries packets of a TUN device in UDP, to interoperate with",
    },
    Package { name: "iputils-ping", program: "ping", why: "round trips of measurements" },
    Package {
        name: "wireguard-go",
        program: "wireguard-go",
        why: "another implementation of WireGuard, to interoperate with and to compare with",
    },
    Package {
        name: "wireguard-tools",
        program: "wg",
        why: "makes keys and configures other implementations of WireGuard",
    },
    Package {
        name: "util-linux",
        program: "unshare",
        why: "mount namespaces, in which wireguard-go and wg meet at a socket of their own",
    },
    Package { name: "tcpdump", program: "tcpdump", why: "sees the wire without our own parsers" },
    Package {
        name: "iptables",
        program: "iptables-nft",
        why: "a firewall of others, whose chains drop what is forwarded",
    },
    Package {
        name: "sshfs",
        program: "sshfs",
        why: "a file system that other machines change and that remembers what it was told",
    },
    Package {
        name: "openssh-sftp-server",
        program: "/usr/lib/openssh/sftp-server",
        why: "serves files to sshfs on a pipe, without a network",
    },
    Package {
        name: "e2fsprogs",
        program: "mkfs.ext4",
        why: "makes an ext4 in a file, whatever the machine's own file system is",
    },
    Package { name: "strace", program: "strace", why: "kills adit at every step of its plan" },
    Package {
        name: "dbus-daemon",
        program: "dbus-daemon",
        why: "a bus of its own for systemd-resolved in tests",
    },
    Package {
        name: "dbus-bin",
        program: "dbus-send",
        why: "asks systemd-resolved what it was told",
    },
];

pub(crate) use unpacked::resolved;

/// Installs what is missing, or says how.
///
/// # Errors
///
/// A package that cannot be installed is an error only where nobody could do it by hand.
pub(crate) fn run() -> Result<(), Failure> {
    let missing: Vec<_> =
        PACKAGES.iter().filter(|package| program::find(package.program).is_none()).collect();
    if missing.is_empty() {
        println!("setup: no package is missing");
        return build_and_unpack();
    }
    for package in &missing {
        println!("setup: {} is missing: {}", package.name, package.why);
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if program::find("apt-get").is_some() && rustix::process::geteuid().is_root() {
        install(&names)?;
        return build_and_unpack();
    }
    let names = names.join(" ");
    println!("setup: on Debian and Ubuntu: sudo apt-get update && sudo apt-get install {names}");
    if program::is_unattended() {
        return Err(Failure::new(format!("{names} missing, and not root on a Debian system")));
    }
    Ok(())
}

/// What no package is installed for.
fn build_and_unpack() -> Result<(), Failure> {
    boringtun::build()?;
    unpacked::fetch()
}

fn install(names: &[&str]) -> Result<(), Failure> {
    program::run(apt_get("update").arg("--quiet"))?;
    let options = ["--quiet", "--yes", "--no-install-recommends"];
    program::run(apt_get("install").args(options).args(names))
}

fn apt_get(command: &str) -> Command {
    let mut apt_get = Command::new("apt-get");
    // iperf3 asks whether to run as a daemon.
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").arg(command);
    apt_get
}
