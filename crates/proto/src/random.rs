//! Randomness as the tunnel sees it: an argument.

/// A source of octets that nobody can predict.
///
/// In the engine that is the kernel's (getrandom(2)); a simulation takes a seed, and then repeats.
pub trait Random {
    /// Fills `octets`.
    fn fill(&mut self, octets: &mut [u8]);

    /// Any number of 32 bits.
    fn u32(&mut self) -> u32 {
        let mut octets = [0; 4];
        self.fill(&mut octets);
        u32::from_le_bytes(octets)
    }
}

impl dyn Random + '_ {
    /// `N` random octets.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.fill(&mut octets);
        octets
    }
}

/// What is no randomness at all: 1, 2, 3 and so on.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Count(pub(crate) u8);

/// `N` octets that count up from `first`, as test vectors like them.
#[cfg(test)]
pub(crate) fn ascending<const N: usize>(first: u8) -> [u8; N] {
    let random: &mut dyn Random = &mut Count(first.wrapping_sub(1));
    random.array()
}

#[cfg(test)]
impl Random for Count {
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.0 = self.0.wrapping_add(1);
            *octet = self.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_arrays_come_from_fill() {
        let random: &mut dyn Random = &mut Count(0);
        assert_eq!(random.array::<3>(), [1, 2, 3]);
        assert_eq!(random.u32(), 0x0706_0504);
    }
}
