//! One rule of nf_tables, in the words of nft(8) and in the expressions of the kernel.
//!
//! The kernel runs the expressions of a rule in order over a set of registers: an expression loads
//! something of the packet into a register or compares a register with a constant, and the first
//! comparison that fails ends the rule. The last expression says what becomes of the packet. One
//! register of 16 octets is enough here. Numbers of include/uapi/linux/netfilter/nf_tables.h.
//!
//! A register holds packet data and addresses in network order, but what the kernel itself knows
//! (the state of a connection, a segment size) in the machine's order.
//!
//! **Dialects.** iptables-nft(8) keeps its rules in nf_tables too, but reads only the expressions that
//! it would write itself; a table with one that it does not know it calls incompatible and lists no
//! more. It has no `ct`: the state of a connection it asks of `match`, which runs a match of legacy
//! iptables in nf_tables (net/netfilter/nft_compat.c) with the structure of
//! include/uapi/linux/netfilter/xt_conntrack.h. A link's name it compares up to its final zero.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::nftables::request::Attributes;

/// `NFT_REG_VERDICT` and `NFT_REG_1`.
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const NAME: u16 = 1;
pub(super) const DATA: u16 = 2;

/// The expression that loads what is known besides the packet's octets, and `NFTA_META_KEY`.
pub(super) const META: &str = "meta";
pub(super) const META_KEY: u16 = 2;

/// The expression that runs a match of legacy iptables, and `enum nft_match_attributes`.
pub(super) const MATCH: &str = "match";
pub(super) const MATCH_NAME: u16 = 1;
const MATCH_REVISION: u16 = 2;
pub(super) const MATCH_STRUCTURE: u16 = 3;

/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`.
const VALUE: u16 = 1;
pub(super) const VERDICT_DATA: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;

/// `NF_ACCEPT` of include/uapi/linux/netfilter.h.
const ACCEPT: u32 = 1;

/// `NFPROTO_IPV4` and `NFPROTO_IPV6` of include/uapi/linux/netfilter.h.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Where a header has its source address (RFC 791 and RFC 8200).
const SOURCE_OFFSET_IPV4: u32 = 12;
const SOURCE_OFFSET_IPV6: u32 = 8;

/// TCP's number (RFC 9293), the offset of its flags, and two of them.
const TCP: u8 = 6;
const FLAGS_OFFSET: u32 = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// The option of the maximum segment size, and the offset and length of the size in it.
const OPTION_MSS: u8 = 2;
const OPTION_MSS_OFFSET: u32 = 2;
const OPTION_MSS_LENGTH: u32 = 2;

/// `NF_CT_STATE_BIT` of established and of related connections, of
/// include/uapi/linux/netfilter/nf_conntrack_common.h.
const ESTABLISHED_OR_RELATED: u16 = 1 << 1 | 1 << 2;

/// The octets of an interface name in a register (`IFNAMSIZ`), filled up with zeros.
const INTERFACE: usize = 16;

/// `XT_CONNTRACK_STATE`, and where `struct xt_conntrack_mtinfo3` has what is matched and the states;
/// its length is rounded up as `XT_ALIGN` does.
const XT_CONNTRACK_REVISION: u32 = 3;
const XT_CONNTRACK_STATE: u16 = 1;
const XT_CONNTRACK_FLAGS: usize = 146;
const XT_CONNTRACK_STATES: usize = 150;
const XT_CONNTRACK_LENGTH: usize = 168;

/// Who must be able to read a statement besides the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// nft(8).
    Nft,
    /// iptables-nft(8), and nft(8) too.
    Iptables,
}

/// What `meta` loads (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    InputName = 6,
    OutputName = 7,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// How `cmp` compares (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Comparison {
    Equal = 0,
    Unequal = 1,
}

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
#[derive(Debug, Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// A rule, as far as it has been put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    dialect: Dialect,
    /// What nft(8) calls it.
    pub(super) words: String,
    /// The value of `NFTA_RULE_EXPRESSIONS`.
    pub(super) expressions: Attributes,
}

impl Statement {
    pub(super) fn new() -> Self {
        Self::of(Dialect::Nft)
    }

    pub(super) fn of(dialect: Dialect) -> Self {
        Self { dialect, words: String::new(), expressions: Attributes::default() }
    }

    /// Matches packets whose source is in `net`, of whatever link.
    pub(super) fn source(self, net: IpNet) -> Self {
        let (protocol, nfproto, family, offset) = match net {
            IpNet::V4(_) => ("ip", "ipv4", IPV4, SOURCE_OFFSET_IPV4),
            IpNet::V6(_) => ("ip6", "ipv6", IPV6, SOURCE_OFFSET_IPV6),
        };
        let statement = self.meta(Meta::NetworkProtocol).compare(Comparison::Equal, &[family]);
        if net.prefix_len() == 0 {
            return statement.say(&format!("meta nfproto {nfproto}"));
        }
        let address = octets(net.network());
        let loaded = statement.say(&format!("{protocol} saddr {}", shown(net))).payload(
            Header::Network,
            offset,
            length(&address),
        );
        let masked = if net.prefix_len() == net.max_prefix_len() {
            loaded
        } else {
            loaded.mask(&octets(net.netmask()))
        };
        masked.compare(Comparison::Equal, &address)
    }

    /// Matches packets that came in by the link of this name.
    pub(super) fn input(self, name: &str) -> Self {
        let wanted = self.dialect.interface(name);
        self.say(&format!("iifname \"{name}\""))
            .meta(Meta::InputName)
            .compare(Comparison::Equal, &wanted)
    }

    /// Matches packets that go out by the link of this name, or by any other.
    pub(super) fn output(self, comparison: Comparison, name: &str) -> Self {
        let operator = match comparison {
            Comparison::Equal => "",
            Comparison::Unequal => "!= ",
        };
        let wanted = self.dialect.interface(name);
        self.say(&format!("oifname {operator}\"{name}\""))
            .meta(Meta::OutputName)
            .compare(comparison, &wanted)
    }

    /// Matches packets of a connection that both ends take part in, or of one that such one asked for.
    pub(super) fn established_or_related(self) -> Self {
        let (register, key_state) = (Attributes::default().number(1, REGISTER), 0);
        let dialect = self.dialect;
        let statement = self.say("ct state established,related");
        match dialect {
            Dialect::Nft => statement
                .expression("ct", &register.number(2, key_state))
                .mask(&u32::from(ESTABLISHED_OR_RELATED).to_ne_bytes())
                .compare(Comparison::Unequal, &[0; 4]),
            Dialect::Iptables => statement.legacy_match(
                "conntrack",
                XT_CONNTRACK_REVISION,
                &legacy_established_or_related(),
            ),
        }
    }

    /// Counts packets and octets. iptables-nft(8) has a counter in every rule.
    pub(super) fn counter(self) -> Self {
        let (octets, packets) = (1, 2);
        let zero = Attributes::default().octets(octets, &[0; 8]).octets(packets, &[0; 8]);
        self.say("counter").expression("counter", &zero)
    }

    /// Matches the first segment of each direction of a TCP connection.
    pub(super) fn syn(self) -> Self {
        self.say("tcp flags & (syn | rst) == syn")
            .meta(Meta::TransportProtocol)
            .compare(Comparison::Equal, &[TCP])
            .payload(Header::Transport, FLAGS_OFFSET, 1)
            .mask(&[SYN | RST])
            .compare(Comparison::Equal, &[SYN])
    }

    /// Ends the chain; the packet goes on to the next.
    pub(super) fn accept(self) -> Self {
        let code = Attributes::default().number(VERDICT_CODE, ACCEPT);
        let data = Attributes::default().nest(VERDICT_DATA, &code);
        let attributes = Attributes::default().number(1, VERDICT).nest(2, &data);
        self.say("accept").expression("immediate", &attributes)
    }

    /// Gives the packet's connection the address of the link that it leaves by.
    pub(super) fn masquerade(self) -> Self {
        self.say("masquerade").expression("masq", &Attributes::default())
    }

    /// Gives the packet's connection another source address.
    pub(super) fn source_nat(self, to: IpAddr) -> Self {
        let (protocol, family) = match to {
            IpAddr::V4(_) => ("ip", IPV4),
            IpAddr::V6(_) => ("ip6", IPV6),
        };
        let address = Attributes::default().number(1, REGISTER).nest(2, &value(&octets(to)));
        let type_source = 0;
        let attributes = Attributes::default()
            .number(1, type_source)
            .number(2, u32::from(family))
            .number(3, REGISTER);
        self.say(&format!("snat {protocol} to {to}"))
            .expression("immediate", &address)
            .expression("nat", &attributes)
    }

    /// Lowers the maximum segment size to what both directions of the path carry.
    pub(super) fn clamp_mss(self) -> Self {
        let (key_tcp_mss, to_network, op_tcp_option) = (3, 1, 1);
        let load = Attributes::default().number(1, REGISTER).number(2, key_tcp_mss);
        let swap = Attributes::default()
            .number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, to_network)
            .number(4, OPTION_MSS_LENGTH)
            .number(5, OPTION_MSS_LENGTH);
        let write = Attributes::default()
            .octets(2, &[OPTION_MSS])
            .number(3, OPTION_MSS_OFFSET)
            .number(4, OPTION_MSS_LENGTH)
            .number(6, op_tcp_option)
            .number(7, REGISTER);
        self.say("tcp option maxseg size set rt mtu")
            .expression("rt", &load)
            .expression("byteorder", &swap)
            .expression("exthdr", &write)
    }

    fn legacy_match(self, name: &str, revision: u32, structure: &[u8]) -> Self {
        let attributes = Attributes::default()
            .text(MATCH_NAME, name)
            .number(MATCH_REVISION, revision)
            .octets(MATCH_STRUCTURE, structure);
        self.expression(MATCH, &attributes)
    }

    fn meta(self, key: Meta) -> Self {
        let attributes = Attributes::default().number(1, REGISTER).number(META_KEY, key as u32);
        self.expression(META, &attributes)
    }

    fn payload(self, header: Header, offset: u32, length: u32) -> Self {
        let attributes = Attributes::default()
            .number(1, REGISTER)
            .number(2, header as u32)
            .number(3, offset)
            .number(4, length);
        self.expression("payload", &attributes)
    }

    fn mask(self, mask: &[u8]) -> Self {
        let attributes = Attributes::default()
            .number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, length(mask))
            .nest(4, &value(mask))
            .nest(5, &value(&vec![0; mask.len()]));
        self.expression("bitwise", &attributes)
    }

    fn compare(self, comparison: Comparison, with: &[u8]) -> Self {
        let attributes = Attributes::default()
            .number(1, REGISTER)
            .number(2, comparison as u32)
            .nest(3, &value(with));
        self.expression("cmp", &attributes)
    }

    fn expression(mut self, name: &str, attributes: &Attributes) -> Self {
        let element = Attributes::default().text(NAME, name).nest(DATA, attributes);
        self.expressions = self.expressions.nest(LIST_ELEMENT, &element);
        self
    }

    fn say(mut self, words: &str) -> Self {
        if !self.words.is_empty() {
            self.words.push(' ');
        }
        self.words.push_str(words);
        self
    }
}

impl Dialect {
    /// What a link's name is compared with.
    fn interface(self, name: &str) -> Vec<u8> {
        match self {
            Self::Nft => padded(name).to_vec(),
            Self::Iptables => [name.as_bytes(), b"\0"].concat(),
        }
    }
}

/// A `struct xt_conntrack_mtinfo3` that matches these states whatever the addresses and ports.
fn legacy_established_or_related() -> [u8; XT_CONNTRACK_LENGTH] {
    let mut structure = [0; XT_CONNTRACK_LENGTH];
    for (offset, number) in
        [(XT_CONNTRACK_FLAGS, XT_CONNTRACK_STATE), (XT_CONNTRACK_STATES, ESTABLISHED_OR_RELATED)]
    {
        let octets = structure.iter_mut().skip(offset);
        octets.zip(number.to_ne_bytes()).for_each(|(octet, value)| *octet = value);
    }
    structure
}

fn value(octets: &[u8]) -> Attributes {
    Attributes::default().octets(VALUE, octets)
}

fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).expect("a register has 16 octets")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.trunc().to_string()
    }
}

fn padded(name: &str) -> [u8; INTERFACE] {
    let mut octets = [0; INTERFACE];
    for (octet, letter) in octets.iter_mut().zip(name.bytes()) {
        *octet = letter;
    }
    octets
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::message::Request as _;
    use crate::nftables::request::{FAMILY_INET, Kind, Request};

    fn emitted(statement: Statement) -> Vec<u8> {
        Request::new(Kind::NewRule, FAMILY_INET, statement.expressions).emit(0, 0)[20..].to_vec()
    }

    #[test]
    fn a_statement_is_a_list_of_named_expressions() {
        let statement = Statement::new().input("a0").accept();
        assert_eq!(statement.words, "iifname \"a0\" accept");
        #[rustfmt::skip]
        assert_eq!(emitted(statement), [
            0x24, 0, 0x01, 0x80,
                0x09, 0, 0x01, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0,
                0x14, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 6,
            0x38, 0, 0x01, 0x80,
                0x08, 0, 0x01, 0, b'c', b'm', b'p', 0,
                0x2c, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0,
                    0x18, 0, 0x03, 0x80, 0x14, 0, 1, 0,
                        b'a', b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x30, 0, 0x01, 0x80,
                0x0e, 0, 0x01, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
                0x1c, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
                    0x10, 0, 0x02, 0x80, 0x0c, 0, 0x02, 0x80, 8, 0, 1, 0, 0, 0, 0, 1,
        ]);
    }

    #[test]
    fn a_source_is_named_without_host_bits() {
        for (net, words) in [
            ("10.1.2.3/25", "ip saddr 10.1.2.0/25"),
            ("10.1.2.3/32", "ip saddr 10.1.2.3"),
            ("0.0.0.0/0", "meta nfproto ipv4"),
            ("fd00:1::9/63", "ip6 saddr fd00:1::/63"),
            ("::/0", "meta nfproto ipv6"),
        ] {
            assert_eq!(Statement::new().source(net.parse().unwrap()).words, words);
        }
    }

    #[test]
    fn the_longest_name_ends_with_a_zero() {
        assert_eq!(padded("a23456789012345")[14..], *b"5\0");
    }
}
