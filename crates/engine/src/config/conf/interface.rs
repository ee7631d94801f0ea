//! `[Interface]`: the device, this side of the tunnel and what the host's network is to look like.

use std::net::IpAddr;

use device::Mode;
use proto::key::PrivateKey;

use super::super::domain::parse_domain;
use super::super::draft::{At, DeviceDraft, List, LocalDraft, NetworkDraft, Place};
use super::super::error::{Problems, Quoted};
use super::super::prefix::{parse_interface_address, parse_loose_interface_prefix};
use super::super::schema::{MAX_ADDRESSES, MAX_NAME_SERVERS, MAX_SEARCH_DOMAINS, NOT_SUPPORTED};
use super::super::value::{MTU, parse_device_name, parse_key};
use super::super::{
    CipherPolicy, InterfaceAddress, KeySource, Origin, POLL_MAX, REKEY_AFTER, Security,
};
use super::line::{Key, Section, Seen, Value, read_section};
use super::{INTERFACE, listen};

/// What messages about this section begin with.
const PLACE: Place = Place::Table(INTERFACE);

/// The keys of the section.
const KEYS: &[Key<Interface>] = &[
    once("PrivateKey", Interface::read_private_key),
    once("ListenPort", Interface::read_listen_port),
    once("FwMark", Interface::read_fwmark),
    many("Address", Interface::read_addresses),
    many("DNS", Interface::read_dns),
    once("MTU", Interface::read_mtu),
    once("Table", Interface::read_table),
    many("PreUp", Interface::refuse_command),
    many("PostUp", Interface::refuse_command),
    many("PreDown", Interface::refuse_command),
    many("PostDown", Interface::refuse_command),
    once("SaveConfig", Interface::read_save_config),
];

/// What commands are often for, by words in them in small letters, and what does it in adit.
const WAYS: &[(&str, &str)] = &[
    ("masquerade", "masquerade = true under [network]"),
    ("snat", "source-nat = \"ADDRESS\" under [network]"),
    ("forward", "forward = true under [network]"),
    ("resolv", "dns = [\"ADDRESS\"] under [network]"),
    ("private-key", "private-key-file = \"PATH\" under [local]"),
    ("preshared-key", "preshared-key-file = \"PATH\" under [[peer]]"),
    ("route", "routes = [\"PREFIX\"] or exclude = [\"PREFIX\"] under [network]"),
];

/// What `[Interface]` says.
pub(super) struct Interface {
    /// Where the section begins.
    pub(super) offset: usize,
    /// Whether the peers' allowed IPs are routed.
    pub(super) routed: bool,
    private_key: Option<PrivateKey>,
    listen_port: Option<At<u16>>,
    fwmark: Option<u32>,
    addresses: List<InterfaceAddress>,
    dns: List<IpAddr>,
    dns_search: List<String>,
    mtu: Option<At<u32>>,
}

const fn once(
    name: &'static str,
    read: fn(&mut Interface, &Value<'_>, &mut Problems<'_>),
) -> Key<Interface> {
    Key { name, repeats: false, read }
}

const fn many(
    name: &'static str,
    read: fn(&mut Interface, &Value<'_>, &mut Problems<'_>),
) -> Key<Interface> {
    Key { name, repeats: true, read }
}

impl Interface {
    /// Reads all sections of that name as one, if there is any.
    pub(super) fn read<'a>(
        sections: impl Iterator<Item = &'a Section<'a>>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let mut interface = None;
        let mut seen = Seen::new();
        for section in sections {
            let interface = interface.get_or_insert_with(|| Self::new(section.offset));
            read_section(section, &PLACE, KEYS, &mut seen, interface, problems);
        }
        let interface = interface?;
        if !seen.contains_key("PrivateKey") {
            problems.push(interface.offset, format!("{PLACE}PrivateKey is missing"));
        }
        Some(interface)
    }

    fn new(offset: usize) -> Self {
        Self {
            offset,
            routed: true,
            private_key: None,
            listen_port: None,
            fwmark: None,
            addresses: List::missing(offset),
            dns: List::missing(offset),
            dns_search: List::missing(offset),
            mtu: None,
        }
    }

    /// The device, whose name is the tunnel's.
    pub(super) fn device(&self, origin: &Origin, problems: &mut Problems<'_>) -> DeviceDraft {
        let refuse = |error| {
            problems.push(self.offset, format!("{PLACE}the name of the tunnel {error}"));
        };
        DeviceDraft {
            place: PLACE,
            name: parse_device_name(origin.tunnel()).map_err(refuse).ok(),
            mode: Some(Mode::Tun),
            addresses: self.addresses.clone(),
            mtu: self.mtu,
            queues: 1,
            offload: true,
        }
    }

    /// What the host's network is to look like, with a default route or without.
    pub(super) fn network(
        &self,
        default_route: Option<At<bool>>,
        ipv6_beside: Option<At<bool>>,
    ) -> NetworkDraft {
        NetworkDraft {
            place: PLACE,
            routes: List::missing(self.offset),
            allowed_ips_routed: self.routed,
            default_route,
            exclude: List::missing(self.offset),
            ipv6_beside,
            forward: None,
            masquerade: None,
            source_nat: List::missing(self.offset),
            bridge: None,
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
        }
    }

    /// This side of the tunnel, which may have to listen although it does not say where.
    pub(super) fn into_local(self, must_listen: bool) -> LocalDraft {
        let any = must_listen.then_some(At { offset: self.offset, value: 0 });
        let mut endpoints = List::missing(self.offset);
        if let Some(At { offset, value: port }) = self.listen_port.or(any) {
            for endpoint in listen(port) {
                endpoints.push(offset, Some(endpoint));
            }
        }
        LocalDraft {
            place: PLACE,
            listen: endpoints,
            security: Security::Wireguard,
            private_key: self.private_key.map(KeySource::Inline),
            ciphers: At { offset: self.offset, value: CipherPolicy::Auto },
            extensions: true,
            rekey_after: REKEY_AFTER,
            fwmark: self.fwmark,
            busy_poll: None,
            poll_max: POLL_MAX,
        }
    }

    fn read_private_key(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        self.private_key = value.parsed(parse_key, problems);
    }

    fn read_listen_port(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        let port = value.parsed(|text| parse_number(text, "0..=65535"), problems);
        self.listen_port = port.map(|port| At { offset: value.offset, value: port });
    }

    fn read_fwmark(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        self.fwmark = value.parsed(parse_fwmark, problems).filter(|mark| *mark != 0);
    }

    fn read_addresses(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        let parse = |text: &str| parse_loose_interface_prefix(text).map(InterfaceAddress::Prefix);
        for item in value.items(char::is_whitespace) {
            item.push(&mut self.addresses, MAX_ADDRESSES, parse, problems);
        }
    }

    /// Addresses are servers, and everything else is a domain to search.
    fn read_dns(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        for item in value.items(char::is_whitespace) {
            let is_number = |c: char| c.is_ascii_digit() || c == '.';
            if item.text.contains(':') || item.text.chars().all(is_number) {
                item.push(&mut self.dns, MAX_NAME_SERVERS, parse_interface_address, problems);
            } else {
                item.push(&mut self.dns_search, MAX_SEARCH_DOMAINS, parse_domain, problems);
            }
        }
    }

    fn read_mtu(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        let parse = |text: &str| match parse_number(text, "68..=65535")? {
            mtu if MTU.contains(&mtu) => Ok(mtu),
            mtu => Err(format!("{mtu} is not in 68..=65535")),
        };
        let mtu = value.parsed(parse, problems);
        self.mtu = mtu.map(|mtu| At { offset: value.offset, value: mtu });
    }

    fn read_table(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "auto" | "" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!(
                "{} {NOT_SUPPORTED}; \"off\" adds no routes, \"auto\" adds them to the main table",
                Quoted(text)
            )),
        };
        self.routed = value.parsed(parse, problems).unwrap_or(true);
    }

    fn read_save_config(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        match value.text.to_ascii_lowercase().as_str() {
            "false" => {}
            "true" => {
                value.refuse("is not supported: adit never writes its configuration", problems);
            }
            _ => value
                .refuse(format_args!("{} is neither true nor false", Quoted(value.text)), problems),
        }
    }

    /// The command is not repeated, since keys may stand in it.
    fn refuse_command(&mut self, value: &Value<'_>, problems: &mut Problems<'_>) {
        let command = value.text.to_ascii_lowercase();
        if command.is_empty() {
            return;
        }
        let ways = WAYS.iter().filter(|(word, _)| command.contains(word));
        let ways: Vec<_> = ways.map(|(_, way)| *way).collect();
        let instead = match ways.is_empty() {
            true => String::new(),
            false => format!("; a TOML file has {} for this", ways.join(" and ")),
        };
        value.refuse(format_args!("is not supported: adit runs no commands{instead}"), problems);
    }
}

/// A number in decimal digits.
fn parse_number<N: std::str::FromStr>(text: &str, limits: &str) -> Result<N, String> {
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| format!("{} is not in {limits}", Quoted(text)))
}

/// A mark, decimal or with `0x`, of which "off" is 0.
fn parse_fwmark(text: &str) -> Result<u32, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(0);
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|octet| octet.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16)
                .map_err(|_| format!("{} is not in 0..=0xffffffff", Quoted(text)))
        }
        Some(_) => Err(format!("{} is not in 0..=0xffffffff", Quoted(text))),
        None => parse_number(text, "0..=0xffffffff"),
    }
}
