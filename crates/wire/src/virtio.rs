//! `struct virtio_net_hdr`, which stands before every packet of a device opened with `IFF_VNET_HDR`.
//!
//! The header says what the kernel left undone in a packet that it hands out, and what it may leave
//! undone in a packet that it takes: a checksum to complete (`NEEDS_CSUM`: sum from `csum_start` to
//! the end, store the complement `csum_offset` octets after `csum_start`, where the pseudo-header's
//! sum waits), and a super-packet to cut into pieces of `gso_size` octets of payload.
//!
//! The fields are in the machine's own byte order: `tun` uses the legacy layout of ten octets, whose
//! order is native unless `TUNSETVNETLE` or `TUNSETVNETBE` asked otherwise, and nobody asks here
//! (`tun_legacy_is_little_endian` in `drivers/net/tun_vnet.h`).
//!
//! `tun` ignores [`VirtioNetHdr::DATA_VALID`] on packets written to it. A writer that wants to spare
//! the kernel the check of a checksum sets [`VirtioNetHdr::NEEDS_CSUM`] and puts the pseudo-header's
//! sum in place.
//!
//! References: `include/uapi/linux/virtio_net.h`; Virtual I/O Device 1.2, section 5.1.6.

/// The bit of `gso_type` that says that the first segment may carry CWR (`VIRTIO_NET_HDR_GSO_ECN`).
const GSO_ECN: u8 = 0x80;

/// What a device says about one packet; the default says that it is complete as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHdr {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM), [`DATA_VALID`](Self::DATA_VALID) and bits that mean nothing here.
    pub flags: u8,
    /// How the packet is to be cut.
    pub gso: Gso,
    /// Set beside a TCP kind when the super-packet carries CWR, which belongs to its first segment only.
    pub ecn: bool,
    /// A hint at the length of all headers in octets; the kernel does not promise that it is right.
    pub hdr_len: u16,
    /// Octets of payload in each segment but the last; 0 without segmentation.
    pub gso_size: u16,
    /// Where the checksummed octets start, counted from the start of the packet or frame.
    pub csum_start: u16,
    /// Where the checksum is stored, counted from `csum_start`.
    pub csum_offset: u16,
}

/// The kind of a super-packet (`VIRTIO_NET_HDR_GSO_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gso {
    /// One packet, not to be cut.
    #[default]
    None,
    /// TCP in IPv4.
    TcpV4,
    /// TCP in IPv6.
    TcpV6,
    /// UDP datagrams of equal size, in IPv4 or IPv6 (USO, since Linux 6.2).
    UdpL4,
}

/// Why ten octets are no usable `virtio_net_hdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VirtioError {
    /// A kind of segmentation that was never asked for.
    #[error("virtio header: unknown segmentation type {0:#04x}")]
    UnknownGso(u8),
}

impl VirtioNetHdr {
    /// Length in octets.
    pub const LEN: usize = 10;
    /// The checksum is to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    pub const NEEDS_CSUM: u8 = 1;
    /// The kernel has verified the checksum (`VIRTIO_NET_HDR_F_DATA_VALID`).
    pub const DATA_VALID: u8 = 2;

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`VirtioError::UnknownGso`] for every kind but those of [`Gso`].
    pub fn parse(octets: &[u8; Self::LEN]) -> Result<Self, VirtioError> {
        Self::parse_with(octets, u16::from_ne_bytes)
    }

    /// Reads a header that another machine has written, little-endian as Virtio 1.0 has it.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_le(octets: &[u8; Self::LEN]) -> Result<Self, VirtioError> {
        Self::parse_with(octets, u16::from_le_bytes)
    }

    #[inline]
    fn parse_with(octets: &[u8; Self::LEN], word: fn([u8; 2]) -> u16) -> Result<Self, VirtioError> {
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1] = *octets;
        let gso = match gso_type & !GSO_ECN {
            0 => Gso::None,
            1 => Gso::TcpV4,
            4 => Gso::TcpV6,
            5 => Gso::UdpL4,
            _ => return Err(VirtioError::UnknownGso(gso_type)),
        };
        Ok(Self {
            flags,
            gso,
            ecn: gso_type & GSO_ECN != 0,
            hdr_len: word([h0, h1]),
            gso_size: word([s0, s1]),
            csum_start: word([c0, c1]),
            csum_offset: word([o0, o1]),
        })
    }

    /// The header as the device takes it.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        self.emit_with(u16::to_ne_bytes)
    }

    /// The header as another machine reads it.
    #[must_use]
    pub fn emit_le(&self) -> [u8; Self::LEN] {
        self.emit_with(u16::to_le_bytes)
    }

    #[inline]
    fn emit_with(&self, word: fn(u16) -> [u8; 2]) -> [u8; Self::LEN] {
        let gso = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => 1,
            Gso::TcpV6 => 4,
            Gso::UdpL4 => 5,
        };
        let gso_type = gso | if self.ecn { GSO_ECN } else { 0 };
        let [h0, h1] = word(self.hdr_len);
        let [s0, s1] = word(self.gso_size);
        let [c0, c1] = word(self.csum_start);
        let [o0, o1] = word(self.csum_offset);
        [self.flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
    }

    /// Whether the checksum at `csum_start + csum_offset` is still to be completed.
    #[must_use]
    pub fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_super_packet_header_reads_as_its_fields_and_back() {
        let mut octets = [0; VirtioNetHdr::LEN];
        octets[0] = 1;
        octets[1] = 0x81;
        octets[2..4].copy_from_slice(&52u16.to_ne_bytes());
        octets[4..6].copy_from_slice(&1448u16.to_ne_bytes());
        octets[6..8].copy_from_slice(&20u16.to_ne_bytes());
        octets[8..10].copy_from_slice(&16u16.to_ne_bytes());
        let header = VirtioNetHdr::parse(&octets).unwrap();
        let expected = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso: Gso::TcpV4,
            ecn: true,
            hdr_len: 52,
            gso_size: 1448,
            csum_start: 20,
            csum_offset: 16,
        };
        assert_eq!(header, expected);
        assert!(header.needs_checksum());
        assert_eq!(header.emit(), octets);
    }

    #[test]
    fn every_gso_type_is_either_known_and_kept_or_an_error() {
        for gso_type in 0..=u8::MAX {
            let octets = [2, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
            let parsed = VirtioNetHdr::parse(&octets);
            if matches!(gso_type & 0x7f, 0 | 1 | 4 | 5) {
                assert_eq!(parsed.unwrap().emit(), octets);
            } else {
                assert_eq!(parsed, Err(VirtioError::UnknownGso(gso_type)));
            }
        }
    }

    #[test]
    fn the_default_header_is_ten_zeros() {
        assert_eq!(VirtioNetHdr::default().emit(), [0; 10]);
    }
}
