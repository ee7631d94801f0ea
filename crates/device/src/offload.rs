//! Work on packets that the kernel leaves to the reader of a device.

use crate::sys;

/// What the kernel may leave undone in packets that it hands to the reader of a device.
///
/// A field that is set means that packets arrive in that unfinished form, described by their
/// virtio-net header. It says nothing about what may be written: the kernel takes every form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offload {
    /// The checksum of TCP and UDP holds the pseudo-header sum only.
    pub checksum: bool,
    /// TCP over IPv4 comes in super-packets of up to 64 KiB.
    pub tso4: bool,
    /// TCP over IPv6 comes in super-packets of up to 64 KiB.
    pub tso6: bool,
    /// TCP super-packets may carry the CWR flag.
    pub tso_ecn: bool,
    /// UDP over IPv4 comes in super-packets. Linux 6.2 knows it, and only together with `uso6`.
    pub uso4: bool,
    /// UDP over IPv6 comes in super-packets. Linux 6.2 knows it, and only together with `uso4`.
    pub uso6: bool,
}

impl Offload {
    /// Everything that the kernel can leave to the reader.
    pub const ALL: Self =
        Self { checksum: true, tso4: true, tso6: true, tso_ecn: true, uso4: true, uso6: true };

    /// Every packet is complete when it is read.
    pub const NONE: Self = Self {
        checksum: false,
        tso4: false,
        tso6: false,
        tso_ecn: false,
        uso4: false,
        uso6: false,
    };

    /// What to ask for, best first, when the kernel may refuse some of it.
    ///
    /// Each step gives up what the next older kernels lack; the last is [`Offload::NONE`].
    pub(crate) fn ladder(self) -> [Self; 5] {
        let without_uso = Self { uso4: false, uso6: false, ..self };
        let without_ecn = Self { tso_ecn: false, ..without_uso };
        let only_checksum = Self { tso4: false, tso6: false, ..without_ecn };
        [self, without_uso, without_ecn, only_checksum, Self::NONE]
    }

    /// The argument of `TUNSETOFFLOAD` (Linux `uapi/linux/if_tun.h`).
    pub(crate) fn mask(self) -> u32 {
        [
            (self.checksum, sys::TUN_F_CSUM),
            (self.tso4, sys::TUN_F_TSO4),
            (self.tso6, sys::TUN_F_TSO6),
            (self.tso_ecn, sys::TUN_F_TSO_ECN),
            (self.uso4, sys::TUN_F_USO4),
            (self.uso6, sys::TUN_F_USO6),
        ]
        .into_iter()
        .filter(|&(wanted, _)| wanted)
        .fold(0, |mask, (_, bit)| mask | bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_that_of_the_kernel() {
        assert_eq!(Offload::ALL.mask(), 0x6f);
        assert_eq!(Offload::NONE.mask(), 0);
        assert_eq!(Offload { tso6: true, ..Offload::NONE }.mask(), 0x04);
    }

    #[test]
    fn the_ladder_gives_up_the_youngest_offload_first() {
        assert_eq!(Offload::ALL.ladder().map(Offload::mask), [0x6f, 0x0f, 0x07, 0x01, 0x00]);
    }
}
