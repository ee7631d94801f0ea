//! The keys of the configuration, their types and limits, and what this version cannot do.

use super::draft::Words;

/// How a message ends that refuses what a later version will do.
pub(super) const NOT_SUPPORTED: &str = "is not supported by this version of adit";

/// The transports that this version cannot do.
pub(super) const LATER_TRANSPORTS: &[&str] = &["tcp", "exec", "unix"];

/// How many peers a TAP device can have in this version.
pub(super) const MAX_TAP_PEERS: usize = 1;

pub(super) const MAX_ADDRESSES: usize = 64;
const MAX_LISTEN: usize = 16;
const MAX_ROUTES: usize = 4096;
const MAX_EXCLUDED: usize = 4096;
pub(super) const MAX_NAME_SERVERS: usize = 8;
/// As many search domains as every resolver knows (resolv.conf(5)).
pub(super) const MAX_SEARCH_DOMAINS: usize = 6;
/// One address a family.
const MAX_SOURCE_NAT: usize = 2;
pub(super) const MAX_PEERS: usize = 65_535;
const MAX_ENDPOINTS: usize = 16;
pub(super) const MAX_ALLOWED_IPS: usize = 4096;

/// The keys of one table.
pub(super) type Schema = &'static [Key];

/// A key that a table may have.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// The type of a value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Boolean,
    Integer,
    String,
    /// A string such as "25s".
    Duration,
    /// A string, or a table with the keys of [`POINT_TO_POINT`].
    Address,
    Table,
    /// An array of at most so many values of one kind.
    List(&'static Self, usize),
    /// A string, or an array of at most so many.
    StringOrList(usize),
}

/// The whole file.
pub(super) const DOCUMENT: Schema = &[
    key("device", Kind::Table),
    key("local", Kind::Table),
    key("network", Kind::Table),
    key("peer", Kind::List(&Kind::Table, MAX_PEERS)),
];

/// How messages name the keys.
pub(super) const WORDS: Words = Words {
    addresses: "addresses",
    mtu: "mtu",
    dns: "dns",
    dns_search: "dns-search",
    public_key: "public-key",
    endpoints: "endpoints",
    allowed_ips: "allowed-ips",
};

/// `[device]`
pub(super) const DEVICE: Schema = &[
    key("name", Kind::String),
    key("mode", Kind::String),
    key("addresses", Kind::List(&Kind::Address, MAX_ADDRESSES)),
    key("mtu", Kind::Integer),
    key("queues", Kind::Integer),
    key("offload", Kind::Boolean),
];

/// An address of `[device]` with two ends.
pub(super) const POINT_TO_POINT: Schema = &[key("local", Kind::String), key("peer", Kind::String)];

/// `[local]`
pub(super) const LOCAL: Schema = &[
    key("private-key-file", Kind::String),
    key("listen", Kind::List(&Kind::String, MAX_LISTEN)),
    key("security", Kind::String),
    key("cipher", Kind::String),
    key("extensions", Kind::Boolean),
    key("rekey-after", Kind::Duration),
    key("fwmark", Kind::Integer),
    key("busy-poll", Kind::Duration),
    key("poll-max", Kind::Duration),
];

/// `[network]`
pub(super) const NETWORK: Schema = &[
    key("routes", Kind::List(&Kind::String, MAX_ROUTES)),
    key("default-route", Kind::Boolean),
    key("exclude", Kind::List(&Kind::String, MAX_EXCLUDED)),
    key("ipv6-beside-tunnel", Kind::Boolean),
    key("forward", Kind::Boolean),
    key("masquerade", Kind::Boolean),
    key("source-nat", Kind::StringOrList(MAX_SOURCE_NAT)),
    key("bridge", Kind::String),
    key("dns", Kind::List(&Kind::String, MAX_NAME_SERVERS)),
    key("dns-search", Kind::List(&Kind::String, MAX_SEARCH_DOMAINS)),
];

/// `[[peer]]`
pub(super) const PEER: Schema = &[
    key("name", Kind::String),
    key("public-key", Kind::String),
    key("preshared-key-file", Kind::String),
    key("endpoints", Kind::List(&Kind::String, MAX_ENDPOINTS)),
    key("allowed-ips", Kind::List(&Kind::String, MAX_ALLOWED_IPS)),
    key("keepalive", Kind::Duration),
];

/// The tables with their headings, to tell in which one a key belongs.
pub(super) const TABLES: &[(&str, Schema)] =
    &[("[device]", DEVICE), ("[local]", LOCAL), ("[network]", NETWORK), ("[[peer]]", PEER)];

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}
