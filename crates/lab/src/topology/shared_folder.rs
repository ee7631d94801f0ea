//! A host without any network, a host with internet, and a folder that both have.

use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{
    BuildError, ETH0, Port, UPLINK, add_default_route, await_passage, configure, connect, host,
    uplink_ipv4, uplink_ipv6,
};
use crate::host::Host;
use crate::scratch::Scratch;

/// A host A that only shares a folder with B, and C, which stands for the internet.
///
/// A has no device but `lo`. B does not forward. C knows only its own link, so what reaches C must come
/// from an address of B. Everybody may write in the folder, as in one that a file server offers.
#[derive(Debug)]
pub struct SharedFolder {
    /// The host without a network.
    pub a: Host,
    /// The host with internet: 198.51.100.2 and 2001:db8:100::2.
    pub b: Host,
    /// The internet: 198.51.100.3 and 2001:db8:100::3.
    pub c: Host,
    folder: PathBuf,
    /// Holds the folder.
    _scratch: Scratch,
}

impl SharedFolder {
    /// B's IPv4 address towards C.
    pub const B: Ipv4Addr = uplink_ipv4(2);
    /// B's IPv6 address towards C.
    pub const B_IPV6: Ipv6Addr = uplink_ipv6(2);
    /// C's IPv4 address.
    pub const C: Ipv4Addr = uplink_ipv4(3);
    /// C's IPv6 address.
    pub const C_IPV6: Ipv6Addr = uplink_ipv6(3);

    /// The hosts, their devices, addresses and default routes.
    pub const DRAWING: &str =
        "  host A                       host B                          host C
  the folder ----------------- the folder
                               eth0 198.51.100.2/24 ---------- eth0 198.51.100.3/24
                                    2001:db8:100::2/64              2001:db8:100::3/64
  no network                   default via C                   no route back
                               forwards nothing
";

    /// Builds the hosts, the wire between B and C, and an empty folder.
    pub fn build() -> Result<Self, BuildError> {
        let (scratch, folder) = make_folder().map_err(BuildError::Folder)?;
        let (a, b, c) = (host("A")?, host("B")?, host("C")?);
        let topology = Self { a, b, c, folder, _scratch: scratch };
        topology.connect()?;
        let Self { b, c, .. } = &topology;
        for address in [IpAddr::from(Self::C), Self::C_IPV6.into()] {
            await_passage(b, c, address)?;
        }
        Ok(topology)
    }

    /// The hosts in the order of their names.
    pub fn hosts(&self) -> [&Host; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// The folder that A and B share.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn connect(&self) -> Result<(), BuildError> {
        let Self { b, c, .. } = self;
        connect(b, ETH0, c, ETH0)?;
        for (host, number) in [(b, 2), (c, 3)] {
            let (ipv4, ipv6) = (uplink_ipv4(number), uplink_ipv6(number));
            configure(host, Port::new(ETH0, UPLINK, number, ipv4, ipv6))?;
        }
        for via in [IpAddr::from(Self::C), Self::C_IPV6.into()] {
            add_default_route(b, ETH0, via, None)?;
        }
        Ok(())
    }
}

fn make_folder() -> io::Result<(Scratch, PathBuf)> {
    let scratch = Scratch::create()?;
    let folder = scratch.path().join("folder");
    fs::create_dir(&folder)?;
    // Said again, since the mask of the process forbids it.
    fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
    Ok((scratch, folder))
}
