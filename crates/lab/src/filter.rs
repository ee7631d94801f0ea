//! Which packets a capture sees: small classic BPF programs that the kernel runs.
//!
//! What a program rejects is not copied, not queued and not counted, so a filter for rare packets
//! costs nothing beside several Gbit/s of others and cannot lose what it looks for. Loads are
//! relative to the network header (`SKF_NET_OFF`), so one program serves Ethernet and TUN devices.
//!
//! Reference: Documentation/networking/filter.rst and include/uapi/linux/filter.h of the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::sock_filter;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_OCTET: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_HALF_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_LEFT: u16 = 0x64; // BPF_ALU | BPF_LSH | BPF_K
const TO_X: u16 = 0x07; // BPF_MISC | BPF_TAX
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where the protocol (EtherType) is: `SKF_AD_OFF + SKF_AD_PROTOCOL`.
const PROTOCOL: u32 = 0xffff_f000;
/// Where the packet's type is, such as `PACKET_OUTGOING`: `SKF_AD_OFF + SKF_AD_PKTTYPE`.
const PACKET_TYPE: u32 = 0xffff_f004;
/// Base of loads from the network header: `SKF_NET_OFF`.
const NETWORK: u32 = 0xfff0_0000;

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const PROTOCOL_UDP: u32 = 17;

/// A choice of packets.
#[derive(Clone, Debug)]
pub struct Filter(Vec<sock_filter>);

impl Filter {
    /// Every packet.
    pub fn everything() -> Self {
        Self(vec![operation(RETURN, u32::MAX)])
    }

    /// IP packets that leave the device for one of `addresses`, whatever they carry, fragments
    /// included.
    ///
    /// Packets inside a VLAN tag or another IP packet are not looked into.
    pub fn leaving_for(addresses: &[IpAddr]) -> Self {
        Self::any(addresses.iter().map(|address| {
            let mut wanted = vec![(LOAD_OCTET, PACKET_TYPE, u32::from(libc::PACKET_OUTGOING))];
            wanted.extend(match address {
                IpAddr::V4(address) => ipv4_with(&[(16, *address)]),
                IpAddr::V6(address) => ipv6_to(*address),
            });
            wanted
        }))
    }

    /// IPv4 packets between the two hosts, in both directions.
    pub fn between(one: Ipv4Addr, other: Ipv4Addr) -> Self {
        Self::any([ipv4_with(&[(12, one), (16, other)]), ipv4_with(&[(12, other), (16, one)])])
    }

    /// UDP datagrams in IPv4 from or to `port`; of a fragmented one, the first fragment.
    pub fn udp_port(port: u16) -> Self {
        const FRAGMENT_OFFSET: u32 = 0x1fff;
        let is_udp =
            [(LOAD_HALF, PROTOCOL, ETHERTYPE_IPV4), (LOAD_OCTET, NETWORK + 9, PROTOCOL_UDP)];
        let mut program = all_or_skip_to_end(&is_udp, 12);
        program.extend([
            operation(LOAD_HALF, NETWORK + 6),
            operation(AND, FRAGMENT_OFFSET),
            jump_equal(0, 0, 9),
            // The length of the IPv4 header goes to X; `BPF_MSH` cannot load it from there.
            operation(LOAD_OCTET, NETWORK),
            operation(AND, 0x0f),
            operation(SHIFT_LEFT, 2),
            operation(TO_X, 0),
            operation(LOAD_HALF_X, NETWORK),
            jump_equal(u32::from(port), 2, 0),
            operation(LOAD_HALF_X, NETWORK + 2),
            jump_equal(u32::from(port), 0, 1),
            operation(RETURN, u32::MAX),
            operation(RETURN, 0),
        ]);
        Self(program)
    }

    /// The kernel's program.
    pub(crate) fn program(&self) -> Vec<sock_filter> {
        self.0.clone()
    }

    /// Packets for which all conditions of one of the alternatives hold.
    fn any(alternatives: impl IntoIterator<Item = Vec<Condition>>) -> Self {
        let mut program = Vec::new();
        for conditions in alternatives {
            program.extend(all_or_skip_to_end(&conditions, 1));
            program.push(operation(RETURN, u32::MAX));
        }
        program.push(operation(RETURN, 0));
        Self(program)
    }
}

/// A load, its offset, and the value that must be there.
type Condition = (u16, u32, u32);

fn ipv4_with(addresses: &[(u32, Ipv4Addr)]) -> Vec<Condition> {
    let mut wanted = vec![(LOAD_HALF, PROTOCOL, ETHERTYPE_IPV4)];
    wanted.extend(
        addresses.iter().map(|(offset, address)| (LOAD_WORD, NETWORK + offset, address.to_bits())),
    );
    wanted
}

fn ipv6_to(address: Ipv6Addr) -> Vec<Condition> {
    const DESTINATION: [u32; 4] = [24, 28, 32, 36];
    let bits = address.to_bits();
    let words = [bits >> 96, bits >> 64, bits >> 32, bits].map(|word| word & 0xffff_ffff);
    let mut wanted = vec![(LOAD_HALF, PROTOCOL, ETHERTYPE_IPV6)];
    wanted.extend(DESTINATION.into_iter().zip(words).filter_map(|(offset, word)| {
        Some((LOAD_WORD, NETWORK + offset, u32::try_from(word).ok()?))
    }));
    wanted
}

/// Goes on after the conditions when all hold, else skips `beyond` further operations.
fn all_or_skip_to_end(conditions: &[Condition], beyond: u8) -> Vec<sock_filter> {
    let mut program = Vec::new();
    let mut behind = u8::try_from(2 * conditions.len()).unwrap_or(u8::MAX);
    for &(load, offset, value) in conditions {
        behind -= 2;
        program.push(operation(load, offset));
        program.push(jump_equal(value, 0, behind + beyond));
    }
    program
}

fn operation(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump_equal(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: JUMP_EQUAL, jt, jf, k }
}
