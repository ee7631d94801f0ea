//! Super-packets that travel whole, from one device to another one.
//!
//! A transport that carries messages of any length carries a super-packet as one, together with what the kernel has said
//! of it ([`frame`](crate::frame)). The receiver's kernel will act on that: cut the packet, and write a checksum where the
//! header says. So the header is held against the packet first, by whoever sends it and again by whoever
//! gets it. A header that names any other place than that of the transport's checksum is refused: the kernel would
//! write there after the packet's addresses were looked at.

use super::segment::{Layout, SegmentError, ip_octets};
use super::unchecked::ChecksumPlace;
use super::{Accepts, LinkLayer, length_u16};
use crate::virtio::{Gso, VirtioNetHdr};

/// What a device may be told of `packet`, of which `header` is said: a super-packet of TCP or UDP, or one packet
/// whose checksum is undone, or one that is complete.
///
/// # Errors
///
/// [`SegmentError`] if the two do not fit together.
pub fn whole(
    link: LinkLayer,
    header: VirtioNetHdr,
    packet: &[u8],
) -> Result<VirtioNetHdr, SegmentError> {
    match header.gso {
        Gso::None if !header.needs_checksum() => Ok(VirtioNetHdr::default()),
        Gso::None => undone(link, header, packet),
        gso => {
            let layout = Layout::of(link, header, packet)?;
            let payload = packet.len() - layout.headers_len();
            if header.gso_size == 0 || usize::from(header.gso_size) > payload {
                return Err(SegmentError::SegmentSize { gso_size: header.gso_size, payload });
            }
            let hdr_len = length_u16(layout.headers_len());
            let (gso_size, ecn) = (header.gso_size, header.ecn);
            let (csum_start, csum_offset) = (header.csum_start, header.csum_offset);
            let flags = VirtioNetHdr::NEEDS_CSUM;
            Ok(VirtioNetHdr { flags, gso, ecn, hdr_len, gso_size, csum_start, csum_offset })
        }
    }
}

fn undone(
    link: LinkLayer,
    header: VirtioNetHdr,
    packet: &[u8],
) -> Result<VirtioNetHdr, SegmentError> {
    let (start, offset) = (header.csum_start, header.csum_offset);
    let refused = SegmentError::ChecksumPlace { start, offset, len: packet.len() };
    let ip = ip_octets(link, packet).ok_or(refused)?;
    let place = ChecksumPlace::of(ip).ok_or(refused)?.behind(packet.len() - ip.len());
    if place != (ChecksumPlace { start, offset }) {
        return Err(refused);
    }
    Ok(place.virtio_header())
}

impl Accepts {
    /// Whether the device takes super-packets of every kind.
    #[must_use]
    pub fn all(self) -> bool {
        self.tso4 && self.tso6 && self.uso
    }

    /// Whether the device takes a packet with this header.
    #[must_use]
    pub fn takes(self, header: &VirtioNetHdr) -> bool {
        match header.gso {
            Gso::None => true,
            Gso::TcpV4 => self.tso4,
            Gso::TcpV6 => self.tso6,
            Gso::UdpL4 => self.uso,
        }
    }
}
