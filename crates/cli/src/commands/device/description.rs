//! All that can be known of a TUN or TAP device without attaching to it, and so without privilege.
//!
//! From rtnetlink: kind, state, addresses, owner, group and number of queues. From ethtool: the
//! offload that the last process to attach has set, less what was switched off with `ethtool -K`.
//! From `/proc`: which processes are attached; other users' only with privilege. The size of the
//! virtio-net header is told to nobody but who is attached, and is not shown.

use device::account::Accounts;
use device::{DeviceName, Holder, Offload};
use netlink::{Address, Link, Socket, TunLink, TunMode};
use serde::Serialize;

use super::address::DeviceAddress;
use crate::report::Failure;

/// A device, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mode: &'static str,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mtu: u32,
    pub(super) mac: Option<String>,
    pub(super) addresses: Vec<String>,
    pub(super) persistent: bool,
    /// Who may attach; a device without user and group is open to everyone.
    pub(super) user: Option<Account>,
    pub(super) group: Option<Account>,
    /// Whether a process is attached; null if that cannot be known.
    pub(super) attached: Option<bool>,
    /// The processes that are attached, as far as they are visible.
    pub(super) processes: Vec<Process>,
    pub(super) multi_queue: bool,
    /// Attached queues of a multi-queue device.
    pub(super) queues: Option<Queues>,
    pub(super) packet_information: bool,
    pub(super) vnet_header: bool,
    /// What the kernel leaves to the reader; null if it does not tell.
    pub(super) offload: Option<Vec<&'static str>>,
}

/// A user or a group.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    pub(super) id: u32,
    pub(super) name: Option<String>,
}

/// A process that is attached.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) command: String,
}

/// How many queues of a multi-queue device are attached.
#[derive(Debug, Serialize)]
pub(super) struct Queues {
    pub(super) enabled: u32,
    pub(super) disabled: u32,
}

/// What all descriptions are made from: one look at the host.
#[derive(Debug)]
pub(super) struct Host {
    links: Vec<Link>,
    addresses: Vec<Address>,
    holders: Vec<(String, Holder)>,
    users: Accounts,
    groups: Accounts,
}

impl Host {
    /// Looks at the network namespace of this process.
    pub(super) fn look() -> Result<Self, Failure> {
        let mut netlink = Socket::open()?;
        Ok(Self {
            links: netlink.links()?,
            addresses: netlink.addresses()?,
            holders: device::holders(),
            // Numbers do where names cannot be read.
            users: Accounts::users().unwrap_or_default(),
            groups: Accounts::groups().unwrap_or_default(),
        })
    }

    /// All TUN and TAP devices, in the order of their indices.
    pub(super) fn devices(&self) -> Vec<Description> {
        let tuns = self.links.iter().filter_map(|link| Some((link, link.tun?)));
        tuns.map(|(link, tun)| self.describe(link, tun)).collect()
    }

    /// The link of this name.
    pub(super) fn link(&self, name: &DeviceName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }

    pub(super) fn describe(&self, link: &Link, tun: TunLink) -> Description {
        let processes = self.processes(link, tun);
        Description {
            name: link.name.clone(),
            index: link.index.0,
            mode: match tun.mode {
                TunMode::Tun => "tun",
                TunMode::Tap => "tap",
            },
            up: link.up,
            carrier: link.carrier,
            mtu: link.mtu,
            mac: link.mac.map(colons),
            addresses: self.addresses(link),
            persistent: tun.persistent,
            user: tun.owner.map(|id| account(&self.users, id)),
            group: tun.group.map(|id| account(&self.groups, id)),
            attached: if processes.is_empty() { is_attached(link, tun) } else { Some(true) },
            processes,
            multi_queue: tun.multi_queue,
            queues: tun
                .multi_queue
                .then_some(Queues { enabled: tun.queues, disabled: tun.disabled_queues }),
            packet_information: tun.packet_info,
            vnet_header: tun.vnet_hdr,
            offload: offload(&link.name),
        }
    }

    fn addresses(&self, link: &Link) -> Vec<String> {
        let of_link = self.addresses.iter().filter(|address| address.link == link.index);
        of_link.map(|address| DeviceAddress::from(address).to_string()).collect()
    }

    /// Who is attached. A process that may well hold a device of this name in another namespace is
    /// believed only if the kernel does not know better.
    fn processes(&self, link: &Link, tun: TunLink) -> Vec<Process> {
        let detached = is_attached(link, tun) == Some(false);
        let of_device = self.holders.iter().filter(|(device, _)| *device == link.name);
        of_device
            .filter(|(_, holder)| holder.only_here || !detached)
            .map(|(_, holder)| Process { pid: holder.pid, command: holder.command.clone() })
            .collect()
    }
}

/// Whether a process is attached, from what the kernel tells everyone; none if that is not enough.
fn is_attached(link: &Link, tun: TunLink) -> Option<bool> {
    // A device that is not persistent would be gone.
    if !tun.persistent {
        return Some(true);
    }
    if tun.multi_queue {
        return Some(tun.queues > 0 || tun.disabled_queues > 0);
    }
    // Of a single queue only the carrier tells, and a device that is down shows none.
    link.up.then_some(link.carrier)
}

fn account(accounts: &Accounts, id: u32) -> Account {
    Account { id, name: accounts.name(id).map(str::to_owned) }
}

fn offload(name: &str) -> Option<Vec<&'static str>> {
    let Offload { checksum, tso4, tso6, tso_ecn, uso4, uso6 } =
        device::transmit_offload(&DeviceName::parse(name).ok()?).ok()?;
    let named = [
        (checksum, "checksum"),
        (tso4, "tso4"),
        (tso6, "tso6"),
        (tso_ecn, "tso-ecn"),
        (uso4, "uso4"),
        (uso6, "uso6"),
    ];
    Some(named.into_iter().filter_map(|(active, name)| active.then_some(name)).collect())
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use netlink::LinkIndex;

    use super::*;

    fn link(up: bool, carrier: bool) -> Link {
        Link {
            index: LinkIndex(2),
            name: "tun0".into(),
            mtu: 1500,
            up,
            carrier,
            loopback: false,
            kind: Some("tun".into()),
            mac: None,
            master: None,
            tun: None,
        }
    }

    const PERSISTENT: TunLink = TunLink {
        mode: TunMode::Tun,
        owner: None,
        group: None,
        packet_info: false,
        vnet_hdr: false,
        persistent: true,
        multi_queue: false,
        queues: 0,
        disabled_queues: 0,
    };

    #[test]
    fn a_device_that_is_not_persistent_exists_because_someone_is_attached() {
        let transient = TunLink { persistent: false, ..PERSISTENT };
        assert_eq!(is_attached(&link(false, false), transient), Some(true));
    }

    #[test]
    fn the_carrier_of_a_persistent_device_tells_only_while_it_is_up() {
        assert_eq!(is_attached(&link(true, true), PERSISTENT), Some(true));
        assert_eq!(is_attached(&link(true, false), PERSISTENT), Some(false));
        assert_eq!(is_attached(&link(false, false), PERSISTENT), None);
    }

    #[test]
    fn a_multi_queue_device_counts_its_queues() {
        let many = TunLink { multi_queue: true, ..PERSISTENT };
        assert_eq!(is_attached(&link(false, false), many), Some(false));
        let attached = TunLink { queues: 1, ..many };
        assert_eq!(is_attached(&link(false, false), attached), Some(true));
    }
}
