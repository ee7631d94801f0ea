//! Two hosts and the ways from one to the other.
//!
//! ```text
//!   host A                                   host B
//!   eth0   10.1.0.1/24 ------ wire --------- eth0   10.1.0.2/24     bare
//!   vxlan0 10.8.0.1/24 - - VXLAN in UDP - -  vxlan0 10.8.0.2/24     vxlan
//!   adit0  10.9.0.1/24 - - packets in UDP -  adit0  10.9.0.2/24     all of adit but
//!   adit0  10.9.0.1/24 - - files - - - - - - adit0  10.9.0.2/24     through a folder
//!   wg0    10.10.0.1/24  - WireGuard - - -   wg0    10.10.0.2/24    wireguard-go
//! ```
//!
//! Both hosts are network namespaces of their own; of the machine's nothing is changed. The VXLAN
//! devices stand all the time, programs run only while they have their turn.

mod configuration;
mod keys;
mod wireguard_go;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use lab::topology::ETH0;
use lab::{Deadline, Host, Process, TwoHosts};
use netlink::{Address, LinkIndex, Socket, Vxlan};

use super::usage;
use crate::failure::Failure;
use configuration::{Configuration, Security};
use keys::Keys;

/// How long a tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name of the VXLAN device in both hosts.
const VXLAN: &str = "vxlan0";

/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// The port of WireGuard in both hosts.
const WIREGUARD_PORT: u16 = 51820;

/// A way from A to B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Way {
    /// The wire itself.
    Bare,
    /// The kernel's tunnel.
    Vxlan,
    /// adit with `security = "none"`.
    Adit,
    /// The same, with workers that poll before they sleep.
    AditPolling,
    /// adit encrypting as it does between two of its kind, by AES-256-GCM.
    AditAes,
    /// The same through a folder in memory, and nothing else.
    AditSpool,
    /// The same through a folder on the disk of the target directory.
    AditSpoolDisk,
    /// As between two of its kind over UDP, with many other peers.
    AditPeers,
    /// adit as it is towards others: the protocol of WireGuard and nothing else.
    AditStock,
    /// WireGuard in user space by its authors.
    WireguardGo,
}

/// The hosts and the program.
pub(super) struct Rig {
    hosts: TwoHosts,
    adit: PathBuf,
    keys: [Keys; 2],
    /// All peers of [`Way::AditPeers`].
    peers: u32,
}

/// A way that is open.
pub(super) struct Track<'a> {
    rig: &'a Rig,
    way: Way,
    tunnels: Vec<Process>,
}

impl Way {
    /// All ways, in the order of their turns.
    pub(super) const ALL: [Self; 10] = [
        Self::Bare,
        Self::Vxlan,
        Self::Adit,
        Self::AditPolling,
        Self::AditAes,
        Self::AditSpool,
        Self::AditSpoolDisk,
        Self::AditPeers,
        Self::AditStock,
        Self::WireguardGo,
    ];

    /// The ways that others are compared with.
    pub(super) const YARDSTICKS: [Self; 3] = [Self::Bare, Self::Vxlan, Self::WireguardGo];

    /// The name in tables and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Vxlan => "vxlan",
            Self::Adit => "adit",
            Self::AditPolling => "adit-polling",
            Self::AditAes => "adit-aes",
            Self::AditSpool => "adit-spool",
            Self::AditSpoolDisk => "adit-spool-disk",
            Self::AditPeers => "adit-peers",
            Self::AditStock => "adit-stock",
            Self::WireguardGo => "wireguard-go",
        }
    }

    /// The address that this way leads to.
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Bare => TwoHosts::B,
            Self::Vxlan => Ipv4Addr::new(10, 8, 0, 2),
            Self::WireguardGo => Ipv4Addr::new(10, 10, 0, 2),
            _ => Ipv4Addr::new(10, 9, 0, 2),
        }
    }
}

impl Rig {
    /// Builds the hosts, which can then exchange packets on the wire and through VXLAN.
    pub(super) fn build(adit: PathBuf, peers: u32) -> Result<Self, Failure> {
        let hosts = TwoHosts::build()?;
        for (host, number) in hosts.hosts().into_iter().zip([1, 2]) {
            host.run(move || add_vxlan(number))?;
        }
        Ok(Self { hosts, adit, keys: [Keys::new()?, Keys::new()?], peers })
    }

    /// Opens a way; it is closed when it is dropped.
    pub(super) fn open(&self, way: Way) -> Result<Track<'_>, Failure> {
        let mut tunnels = Vec::new();
        for (host, number) in self.hosts.hosts().into_iter().zip([1, 2]) {
            tunnels.extend(match self.security(way) {
                Some(security) => {
                    let spool = self.spool(way)?;
                    Some(self.tunnel(host, number, security, spool.as_deref())?)
                }
                None if way == Way::WireguardGo => {
                    Some(wireguard_go::start(host, &self.folder(), number, &self.keys)?)
                }
                None => None,
            });
        }
        Ok(Track { rig: self, way, tunnels })
    }

    /// What adit is told of security; `None` for a way without adit.
    fn security(&self, way: Way) -> Option<Security<'_>> {
        let keys = &self.keys;
        match way {
            Way::Bare | Way::Vxlan | Way::WireguardGo => None,
            Way::Adit => Some(Security::None { busy_poll: None }),
            Way::AditPolling => Some(Security::None { busy_poll: Some("50us") }),
            Way::AditAes | Way::AditSpool | Way::AditSpoolDisk => {
                Some(Security::Wireguard { keys, extensions: true, peers: 1 })
            }
            Way::AditPeers => {
                Some(Security::Wireguard { keys, extensions: true, peers: self.peers })
            }
            Way::AditStock => Some(Security::Wireguard { keys, extensions: false, peers: 1 }),
        }
    }

    /// Starts adit in a host and waits until its tunnel is up.
    fn tunnel(
        &self,
        host: &Host,
        number: u8,
        security: Security<'_>,
        spool: Option<&Path>,
    ) -> Result<Process, Failure> {
        let name = ["a", "b"][usize::from(number) - 1];
        let folder = self.folder();
        let file = Configuration { number, security, spool }.write(&folder, name)?;
        let mut command = Command::new(&self.adit);
        // Journals of namespaces that vanish have no place among those of the machine.
        command.arg("up").arg(file).env("RUNTIME_DIRECTORY", folder);
        let mut process = host.spawn(command)?;
        process.wait_for_line(&format!("tunnel {name:?} is up"), Deadline::after(PATIENCE))?;
        Ok(process)
    }

    /// The folder that both hosts share, made if need be; `None` for a way without.
    fn spool(&self, way: Way) -> Result<Option<PathBuf>, Failure> {
        let folder = match way {
            Way::AditSpool => Path::new(MEMORY).join(format!("adit-bench-{}", std::process::id())),
            Way::AditSpoolDisk => self.folder().join("spool"),
            _ => return Ok(None),
        };
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::of(format!("make {}", folder.display()), error))?;
        Ok(Some(folder))
    }

    /// Where configurations are written.
    fn folder(&self) -> PathBuf {
        self.adit.parent().unwrap_or_else(|| Path::new(".")).join("bench")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for way in [Way::AditSpool, Way::AditSpoolDisk] {
            if let Ok(Some(folder)) = self.spool(way) {
                // It is this run's own, and so is what killed tunnels have left there.
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}

impl Track<'_> {
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// The host where loads start and round trips are measured.
    pub(super) fn near(&self) -> &Host {
        &self.rig.hosts.a
    }

    /// The host that answers.
    pub(super) fn far(&self) -> &Host {
        &self.rig.hosts.b
    }

    /// The address of [`Self::far`] on this way.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.way.address()
    }

    /// What `load` returns, and the processor time that both ends of the tunnel have spent on it; `None` if they
    /// are no processes.
    pub(super) fn spent<T>(
        &self,
        load: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(T, Option<Duration>), Failure> {
        let before = self.cpu_time()?;
        let result = load()?;
        let spent =
            self.cpu_time()?.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok((result, spent))
    }

    /// The processor time that both ends of the tunnel have used; `None` if they are no processes.
    fn cpu_time(&self) -> Result<Option<Duration>, Failure> {
        let mut times = Vec::new();
        for tunnel in &self.tunnels {
            times.push(usage::cpu_time(tunnel.id())?);
        }
        Ok((!times.is_empty()).then(|| times.into_iter().sum()))
    }

    /// The most memory that an end of the tunnel has had, in octets; `None` if they are no processes.
    pub(super) fn peak_memory(&self) -> Result<Option<u64>, Failure> {
        let mut peak = None;
        for tunnel in &self.tunnels {
            peak = peak.max(Some(usage::peak_memory(tunnel.id())?));
        }
        Ok(peak)
    }
}

/// Makes the VXLAN device of host `number` in the namespace of the calling thread.
fn add_vxlan(number: u8) -> Result<(), netlink::Error> {
    let mut socket = Socket::open()?;
    let device = index(&mut socket, ETH0)?;
    socket.add_vxlan(&Vxlan {
        name: VXLAN,
        id: 42,
        local: Ipv4Addr::new(10, 1, 0, number).into(),
        remote: Ipv4Addr::new(10, 1, 0, 3 - number).into(),
        port: 4789,
        device,
    })?;
    let link = index(&mut socket, VXLAN)?;
    let address = Ipv4Addr::new(10, 8, 0, number);
    let local = format!("{address}/24").parse().expect("an address and a length are a prefix");
    socket.add_address(&Address { link, local, peer: None })?;
    socket.set_up(link, true)
}

fn index(socket: &mut Socket, name: &str) -> Result<LinkIndex, netlink::Error> {
    let link = socket.link(name)?;
    Ok(link.expect("the namespace is this program's own, and the device was just made").index)
}
