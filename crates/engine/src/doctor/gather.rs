//! Reads the host. What cannot be read is observed as that, and is no error.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use device::{DEFAULT_NODE, Holder};
use ipnet::IpNet;
use netlink::journal::Journal;
use netlink::nftables::Hook;
use netlink::{Link, Route, Socket, nftables, sysctl};
use rustix::fs::{major, minor};
use rustix::io::Errno;
use thiserror::Error;

use super::filter::FORWARDING;
use super::observed::{
    Chain, Filter, Listener, Node, Observed, ObservedEndpoint, ObservedTunnel, Resolver,
    inner_networks,
};
use super::sockets;
use crate::config::{self, Config, ConfigError, Endpoint, Host, Peer};
use crate::runtime;

/// The device number of the tun driver (Linux `Documentation/networking/tuntap.rst`).
const TUN_NUMBER: (u32, u32) = (10, 200);

/// How many addresses of a network are tried for one that is not this host's.
const MAX_SAMPLES: usize = 16;

/// The most octets that are read of a file; 16 MiB are some 100,000 sockets.
const FILE_LIMIT: u64 = 16 << 20;

/// The addresses of systemd-resolved's stub (systemd-resolved.service(8)).
const RESOLVED: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// The host cannot be looked at, or the tunnel is not known.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// The kernel does not tell about links, addresses or routes.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It is neither a configuration nor a tunnel that is up.
    #[error("examine {name:?}: there is neither a file nor a running tunnel of that name")]
    Unknown {
        /// What was asked for.
        name: String,
    },
}

/// The configuration of what is asked for: of the file at that path, else of the running tunnel with
/// that name.
///
/// # Errors
///
/// [`DoctorError::Unknown`] if there is neither, [`DoctorError::Config`] if the file is wrong.
pub fn find(file_or_name: &Path) -> Result<Config, DoctorError> {
    if file_or_name.exists() && !file_or_name.is_dir() {
        return Ok(config::load(file_or_name)?);
    }
    let name = file_or_name.to_string_lossy().into_owned();
    let directory = runtime::directory().ok();
    let holder = directory.and_then(|directory| Journal::holder(&directory, &name).ok().flatten());
    let file = holder.and_then(|holder| holder.config);
    Ok(config::load(&file.ok_or(DoctorError::Unknown { name })?)?)
}

/// Looks at the host, and at what concerns a tunnel with that configuration. Looks up the names of its
/// endpoints, for which the system's resolver takes its time.
///
/// # Errors
///
/// [`DoctorError::Netlink`] if rtnetlink does not work.
pub fn observe(config: Option<Config>) -> Result<Observed, DoctorError> {
    let mut netlink = Socket::open()?;
    let links = netlink.links()?;
    let device = config.as_ref().map(|config| config.device.name.to_string());
    let mut observed = Observed {
        node: node(Path::new(DEFAULT_NODE)),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        filter: filter(device.as_deref()),
        legacy: nftables::legacy_filter(),
        addresses: netlink.addresses()?,
        routes: netlink.routes()?,
        sysctls: sysctls(&links),
        resolver: resolver(),
        links,
        tunnel: None,
    };
    observed.tunnel = config.map(|config| tunnel(config, &mut netlink, &observed));
    Ok(observed)
}

/// Opening alone makes no device.
fn node(path: &Path) -> Node {
    let is_driver = fs::metadata(path).map(|metadata| {
        let number = (major(metadata.rdev()), minor(metadata.rdev()));
        metadata.file_type().is_char_device() && number == TUN_NUMBER
    });
    match is_driver {
        Ok(true) => {}
        Ok(false) => return Node::Foreign,
        Err(error) => return refused(path, &error),
    }
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_or_else(|error| refused(path, &error), |_| Node::Usable)
}

fn refused(path: &Path, error: &io::Error) -> Node {
    let evidence = format!("open {}: {error}", path.display());
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Node::Missing(evidence),
        Some(Errno::ACCESS | Errno::PERM) => Node::Forbidden(evidence),
        _ => Node::Failed(evidence),
    }
}

fn filter(device: Option<&str>) -> Filter {
    let read = || {
        let mut socket = nftables::Socket::open()?;
        let tables = socket.tables()?;
        let mut chains = Vec::new();
        for chain in socket.base_chains()? {
            let device = device.filter(|_| chain.hook == Hook::Forward);
            let accepts = device
                .is_some_and(|device| socket.accepts_forward(&chain.id(), device).unwrap_or(false));
            chains.push(Chain { chain, accepts });
        }
        Ok(Filter::Known { chains, tables })
    };
    read().unwrap_or_else(|error: netlink::Error| match error.is_unsupported() {
        true => Filter::Missing(error.to_string()),
        false => Filter::Unknown(error.to_string()),
    })
}

fn sysctls(links: &[Link]) -> BTreeMap<String, String> {
    let names = links.iter().map(|link| link.name.as_str()).chain(["all"]);
    let keys = names.map(|name| sysctl::key_for_interface("net.ipv4.conf", name, "rp_filter"));
    let keys = keys.chain(FORWARDING.iter().map(|(_, key)| (*key).to_owned()));
    keys.filter_map(|key| sysctl::read(&key).ok().map(|value| (key, value))).collect()
}

/// Who answers, as `/etc/resolv.conf` says.
fn resolver() -> Resolver {
    let path = Path::new("/etc/resolv.conf");
    if fs::canonicalize(path).is_ok_and(|path| path.starts_with("/run/systemd/resolve")) {
        return Resolver::Resolved;
    }
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let text = is_file.then(|| read(path)).flatten().unwrap_or_default();
    let servers: Vec<IpAddr> = text.lines().filter_map(name_server).collect();
    match servers.as_slice() {
        [only] if RESOLVED.contains(&only.to_string().as_str()) => Resolver::Resolved,
        _ => Resolver::File(servers),
    }
}

fn name_server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| *word == "nameserver")?;
    words.next()?.parse().ok()
}

fn tunnel(config: Config, netlink: &mut Socket, observed: &Observed) -> ObservedTunnel {
    let directory = runtime::directory().ok();
    let journal = directory.and_then(|it| Journal::holder(&it, &config.name).ok().flatten());
    let running = journal.map(|holder| holder.pid);
    let device = config.device.name.as_str();
    let holders = device::holders().into_iter().filter(|(name, _)| name == device);
    let holders: Vec<_> = holders.map(|(_, holder)| holder).collect();
    ObservedTunnel {
        running,
        own: running.into_iter().flat_map(|pid| own(pid, &holders)).collect(),
        endpoints: config.peers.iter().flat_map(|peer| endpoints(peer, netlink)).collect(),
        ways: ways(&config, netlink, observed),
        listeners: listeners(&config),
        holders,
        config,
    }
}

/// A process and its children among the holders of a device.
fn own(pid: u32, holders: &[Holder]) -> Vec<u32> {
    let is_child = |holder: &&Holder| parent(holder.pid) == Some(pid);
    let children = holders.iter().filter(is_child).map(|holder| holder.pid);
    [pid].into_iter().chain(children).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = read(Path::new(&format!("/proc/{pid}/status")))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

fn endpoints(peer: &Peer, netlink: &mut Socket) -> Vec<ObservedEndpoint> {
    let mut observe = |(index, endpoint): (usize, &Endpoint)| {
        let remote = resolve(endpoint).map_err(|error| error.to_string());
        let way = match &remote {
            Ok(remote) => way(netlink, remote.ip()),
            Err(cause) => Err(cause.clone()),
        };
        ObservedEndpoint {
            peer: peer.name.clone(),
            endpoint: endpoint.clone(),
            first: index == 0,
            remote,
            way,
        }
    };
    let endpoints = peer.endpoints.iter().enumerate();
    let of_network = endpoints.filter(|(_, it)| matches!(it, Endpoint::Udp { .. }));
    of_network.map(&mut observe).collect()
}

/// Where a datagram to an endpoint goes; of several addresses the first, as the tunnel takes it.
fn resolve(endpoint: &Endpoint) -> io::Result<SocketAddr> {
    let Endpoint::Udp { host, port } = endpoint else {
        return Err(io::Error::other("a folder has no address"));
    };
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    match host {
        Host::Ip(ip) => Ok(SocketAddr::new(*ip, *port)),
        Host::Name(name) => (name.as_str(), *port).to_socket_addrs()?.next().ok_or_else(none),
    }
}

fn way(netlink: &mut Socket, ip: IpAddr) -> Result<Route, String> {
    let why = |error: netlink::Error| match error.errno() {
        Some(errno) => errno.to_string(),
        None => error.to_string(),
    };
    netlink.route_to(ip).map_err(why)
}

fn ways(
    config: &Config,
    netlink: &mut Socket,
    observed: &Observed,
) -> Vec<(IpNet, Result<Route, String>)> {
    let local: Vec<_> = observed.addresses.iter().map(|address| address.local.addr()).collect();
    let exclude = &config.network.exclude;
    let is_inside =
        |ip: &IpAddr| !local.contains(ip) && !exclude.iter().any(|net| net.contains(ip));
    let samples = inner_networks(config)
        .into_iter()
        .filter_map(|network| samples(network).find(is_inside).map(|sample| (network, sample)));
    samples.map(|(network, sample)| (network, way(netlink, sample))).collect()
}

/// Some hosts of a network. The first address of IPv6 stands for all its routers (RFC 4291, section
/// 2.6.1).
fn samples(network: IpNet) -> impl Iterator<Item = IpAddr> {
    let skipped = usize::from(network.addr().is_ipv6() && network.prefix_len() < 127);
    network.hosts().skip(skipped).take(MAX_SAMPLES)
}

/// The sockets that have a port of ours.
fn listeners(config: &Config) -> Vec<Listener> {
    let port = |endpoint: &Endpoint| match endpoint {
        Endpoint::Udp { host: Host::Ip(_), port } => *port,
        Endpoint::Udp { .. } | Endpoint::Spool { .. } => 0,
    };
    let ports: Vec<_> = config.local.listen.iter().map(port).filter(|port| *port != 0).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
    let texts = tables.iter().filter_map(|path| read(Path::new(path)));
    let sockets: Vec<_> = texts.flat_map(|text| with_ports(&text, &ports)).collect();
    let listener = |(local, inode): (SocketAddr, u64)| Listener { local, process: owner(inode) };
    sockets.into_iter().map(listener).collect()
}

fn with_ports(text: &str, ports: &[u16]) -> Vec<(SocketAddr, u64)> {
    let sockets = text.lines().filter_map(sockets::parse_line);
    sockets.filter(|(local, _)| ports.contains(&local.port())).collect()
}

/// The first process that has the socket with this inode open.
fn owner(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    let is_it = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find_map(|pid| {
        let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        descriptors.any(|entry| is_it(&entry)).then(|| (pid, command(pid)))
    })
}

/// The name of a process, which chose it itself.
fn command(pid: u32) -> String {
    let comm = read(Path::new(&format!("/proc/{pid}/comm"))).unwrap_or_default();
    comm.trim_end_matches('\n').replace(char::is_control, "\u{fffd}")
}

fn read(path: &Path) -> Option<String> {
    let mut octets = Vec::new();
    File::open(path).ok()?.take(FILE_LIMIT).read_to_end(&mut octets).ok()?;
    Some(String::from_utf8_lossy(&octets).into_owned())
}
