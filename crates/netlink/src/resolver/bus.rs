//! systemd-resolved on the system bus (org.freedesktop.resolve1(5)).
//!
//! Only a bus on a UNIX socket is spoken to: other addresses would start a program or leave the host.
//! A link is known to the service by its number, which means another link in another network namespace,
//! so the service has to live in that of the calling thread. A process without privilege cannot see
//! where it lives, and relies on the service to refuse.

use std::fs;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_io::{Timer, block_on};
use futures_lite::future::or;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zbus::address::Transport;
use zbus::zvariant::{DeserializeValue, DynamicType, OwnedObjectPath, Type};
use zbus::{Address, Connection, Message, connection};

use crate::LinkIndex;

use super::ResolverError;

/// How long the bus and the service may take for one call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

const SERVICE: &str = "org.freedesktop.resolve1";
const OBJECT: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const NO_SUCH_LINK: &str = "org.freedesktop.resolve1.NoSuchLink";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: (&str, &str, &str) =
    ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");

/// What systemd-resolved knows of a link.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The servers to ask over this link.
    pub servers: Vec<Server>,
    /// The domains of the link.
    pub domains: Vec<Domain>,
    /// Whether its servers are asked for names that belong to no link.
    pub default_route: bool,
}

/// A name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 is the usual one.
    pub port: u16,
    /// The name that its certificate has to bear; may be empty.
    pub name: String,
}

/// A domain of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Domain {
    /// Its name; `.` is all names.
    pub name: String,
    /// Whether it only says who is asked, and does not complete names.
    pub route_only: bool,
}

/// The service, reached over the bus.
pub(super) struct Resolved {
    connection: Connection,
}

impl Resolved {
    /// The service that runs, if it does.
    pub(super) fn find() -> Result<Option<Self>, ResolverError> {
        let address = Address::system().map_err(failed("find the system bus"))?;
        if !matches!(address.transport(), Transport::Unix(_)) {
            return Err(ResolverError::BusAddress { address: address.to_string() });
        }
        let connecting = async { connection::Builder::address(address)?.build().await };
        let connection = match within("connect to the system bus", connecting) {
            Ok(connection) => connection,
            Err(ResolverError::Bus { source, .. }) if is_absent(&source) => return Ok(None),
            Err(error) => return Err(error),
        };
        let resolved = Self { connection };
        if !resolved.runs()? {
            return Ok(None);
        }
        resolved.check_namespace()?;
        Ok(Some(resolved))
    }

    /// What it knows of a link; nothing if there is no such link.
    pub(super) fn settings(&self, link: LinkIndex) -> Result<Option<Settings>, ResolverError> {
        let object = match self.manage("GetLink", &(index(link),)) {
            Err(ResolverError::Bus { source, .. }) if is_no_such_link(&source) => return Ok(None),
            reply => reply?.body().deserialize::<OwnedObjectPath>(),
        };
        let object = object.map_err(failed("GetLink"))?;
        let servers: Vec<(i32, Vec<u8>, u16, String)> = self.property(&object, "DNSEx")?;
        let domains: Vec<(String, bool)> = self.property(&object, "Domains")?;
        let servers = servers.into_iter().filter_map(|(_, octets, port, name)| {
            Some(Server { address: address(&octets)?, port, name })
        });
        let domains = domains.into_iter().map(|(name, route_only)| Domain { name, route_only });
        Ok(Some(Settings {
            servers: servers.collect(),
            domains: domains.collect(),
            default_route: self.property(&object, "DefaultRoute")?,
        }))
    }

    /// Gives a link these settings.
    pub(super) fn set(&self, link: LinkIndex, settings: &Settings) -> Result<(), ResolverError> {
        let link = index(link);
        let plain =
            settings.servers.iter().all(|server| server.port == 0 && server.name.is_empty());
        if plain {
            let servers: Vec<(i32, Vec<u8>)> =
                settings.servers.iter().map(|server| family(server.address)).collect();
            self.manage("SetLinkDNS", &(link, servers))?;
        } else {
            let servers: Vec<(i32, Vec<u8>, u16, &str)> =
                settings.servers.iter().map(full).collect();
            self.manage("SetLinkDNSEx", &(link, servers))?;
        }
        let domains: Vec<(&str, bool)> = settings
            .domains
            .iter()
            .map(|domain| (domain.name.as_str(), domain.route_only))
            .collect();
        self.manage("SetLinkDomains", &(link, domains))?;
        self.manage("SetLinkDefaultRoute", &(link, settings.default_route))?;
        Ok(())
    }

    /// Takes all settings from a link.
    pub(super) fn revert(&self, link: LinkIndex) -> Result<(), ResolverError> {
        self.manage("RevertLink", &(index(link),)).map(|_| ())
    }

    fn runs(&self) -> Result<bool, ResolverError> {
        let reply = self.call(BUS, "NameHasOwner", &(SERVICE,))?;
        reply.body().deserialize().map_err(failed("NameHasOwner"))
    }

    fn check_namespace(&self) -> Result<(), ResolverError> {
        let reply = self.call(BUS, "GetConnectionUnixProcessID", &(SERVICE,))?;
        let operation = "GetConnectionUnixProcessID";
        let process: u32 = reply.body().deserialize().map_err(failed(operation))?;
        let own = fs::read_link("/proc/thread-self/ns/net");
        match (fs::read_link(format!("/proc/{process}/ns/net")), own) {
            (Ok(theirs), Ok(own)) if theirs == own => Ok(()),
            (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            _ => Err(ResolverError::OtherNamespace),
        }
    }

    fn property<T>(&self, object: &OwnedObjectPath, name: &'static str) -> Result<T, ResolverError>
    where
        T: DeserializeOwned + Type,
    {
        let reply = self.call((SERVICE, object.as_str(), PROPERTIES), "Get", &(LINK, name))?;
        let body = reply.body();
        let value: DeserializeValue<'_, T> = body.deserialize().map_err(failed(name))?;
        Ok(value.0)
    }

    fn manage<B>(&self, method: &'static str, arguments: &B) -> Result<Message, ResolverError>
    where
        B: Serialize + DynamicType,
    {
        self.call((SERVICE, OBJECT, MANAGER), method, arguments)
    }

    fn call<B>(
        &self,
        (service, object, interface): (&str, &str, &str),
        method: &'static str,
        arguments: &B,
    ) -> Result<Message, ResolverError>
    where
        B: Serialize + DynamicType,
    {
        let call =
            self.connection.call_method(Some(service), object, Some(interface), method, arguments);
        within(method, call)
    }
}

/// Waits for an answer, but no longer than [`CALL_TIMEOUT`].
fn within<T>(
    operation: &'static str,
    answer: impl Future<Output = zbus::Result<T>>,
) -> Result<T, ResolverError> {
    let answer = async { answer.await.map_err(failed(operation)) };
    let timeout = async {
        Timer::after(CALL_TIMEOUT).await;
        Err(ResolverError::TimedOut { operation })
    };
    block_on(or(answer, timeout))
}

fn failed(operation: &'static str) -> impl FnOnce(zbus::Error) -> ResolverError {
    move |source| ResolverError::Bus { operation, source: Box::new(source) }
}

/// Whether there is no bus.
fn is_absent(error: &zbus::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let (zbus::Error::InputOutput(source) | zbus::Error::Connection(source, _)) = error else {
        return false;
    };
    matches!(source.kind(), NotFound | ConnectionRefused)
}

fn is_no_such_link(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == NO_SUCH_LINK)
}

/// D-Bus has the number as a signed one; a link never has one that does not fit.
fn index(link: LinkIndex) -> i32 {
    i32::try_from(link.0).unwrap_or(0)
}

fn full(server: &Server) -> (i32, Vec<u8>, u16, &str) {
    let (family, octets) = family(server.address);
    (family, octets, server.port, &server.name)
}

fn family(address: IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
