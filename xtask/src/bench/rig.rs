//! Two hosts and the ways from one to the other.
//!
//! ```text
//!   host A                                   host B
//!   eth0   10.1.0.1/24 ------ wire --------- eth0   10.1.0.2/24     bare
//!   vxlan0 10.8.0.1/24 - - VXLAN in UDP - -  vxlan0 10.8.0.2/24     vxlan
//!   adit0  10.9.0.1/24 - - packets in UDP -  adit0  10.9.0.2/24     adit
//! ```
//!
//! Both hosts are network namespaces of their own; of the machine's nothing is changed. The VXLAN
//! devices stand all the time, adit runs only while it has its turn.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::topology::ETH0;
use lab::{Deadline, Host, Process, TwoHosts};
use netlink::{Address, LinkIndex, Socket, Vxlan};

use super::usage;
use crate::failure::Failure;

/// How long a tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name of the VXLAN device in both hosts.
const VXLAN: &str = "vxlan0";

/// A way from A to B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// The wire itself.
    Bare,
    /// The kernel's tunnel.
    Vxlan,
    /// adit with `security = "none"`.
    Adit,
    /// The same, with workers that poll before they sleep.
    AditPolling,
}

/// The hosts and the program.
pub(super) struct Rig {
    hosts: TwoHosts,
    adit: PathBuf,
}

/// A way that is open.
pub(super) struct Track<'a> {
    rig: &'a Rig,
    way: Way,
    tunnels: Vec<Process>,
}

impl Way {
    /// All ways, in the order of their turns.
    pub(super) const ALL: [Self; 4] = [Self::Bare, Self::Vxlan, Self::Adit, Self::AditPolling];

    /// The name in tables and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Vxlan => "vxlan",
            Self::Adit => "adit",
            Self::AditPolling => "adit-polling",
        }
    }

    /// The address that this way leads to.
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Bare => TwoHosts::B,
            Self::Vxlan => Ipv4Addr::new(10, 8, 0, 2),
            Self::Adit | Self::AditPolling => Ipv4Addr::new(10, 9, 0, 2),
        }
    }
}

impl Rig {
    /// Builds the hosts, which can then exchange packets on the wire and through VXLAN.
    pub(super) fn build(adit: PathBuf) -> Result<Self, Failure> {
        let hosts = TwoHosts::build()?;
        for (host, number) in hosts.hosts().into_iter().zip([1, 2]) {
            host.run(move || add_vxlan(number))?;
        }
        Ok(Self { hosts, adit })
    }

    /// Opens a way; it is closed when it is dropped.
    pub(super) fn open(&self, way: Way) -> Result<Track<'_>, Failure> {
        let polling = match way {
            Way::Bare | Way::Vxlan => {
                return Ok(Track { rig: self, way, tunnels: Vec::new() });
            }
            Way::Adit => "",
            Way::AditPolling => "busy-poll = \"50us\"\n",
        };
        let [a, b] = self.hosts.hosts();
        let tunnels = vec![self.tunnel(a, "a", 1, polling)?, self.tunnel(b, "b", 2, polling)?];
        Ok(Track { rig: self, way, tunnels })
    }

    /// Starts adit in a host and waits until its tunnel is up.
    fn tunnel(
        &self,
        host: &Host,
        name: &str,
        number: u8,
        polling: &str,
    ) -> Result<Process, Failure> {
        let folder = self.adit.parent().unwrap_or_else(|| Path::new(".")).join("bench");
        let file = folder.join(format!("{name}.toml"));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, configuration(number, polling)))
            .map_err(|error| Failure::of(format!("write {}", file.display()), error))?;
        let mut command = Command::new(&self.adit);
        // Journals of namespaces that vanish have no place among those of the machine.
        command.arg("up").arg(file).env("RUNTIME_DIRECTORY", folder);
        let mut process = host.spawn(command)?;
        process.wait_for_line(&format!("tunnel {name:?} is up"), Deadline::after(PATIENCE))?;
        Ok(process)
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

    /// The processor time that both ends of the tunnel have used; `None` if they are no processes.
    pub(super) fn cpu_time(&self) -> Result<Option<Duration>, Failure> {
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

/// The configuration of host `number`, whose peer is the other one.
fn configuration(number: u8, polling: &str) -> String {
    let other = 3 - number;
    format!(
        "[device]
name = \"adit0\"
addresses = [\"10.9.0.{number}/24\"]

[local]
listen = [\"udp://10.1.0.{number}:4740\"]
security = \"none\"
{polling}
[[peer]]
name = \"other\"
endpoints = [\"udp://10.1.0.{other}:4740\"]
allowed-ips = [\"10.9.0.{other}/32\"]
"
    )
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
