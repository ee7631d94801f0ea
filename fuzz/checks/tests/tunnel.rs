//! Runs of tunnels against the model with random steps: `ADIT_SEEDS` of them, from `ADIT_SEED` on.

use checks::tunnel::check;

/// Runs unless said otherwise.
const SEEDS: u64 = 200;

/// The most octets of a run.
const OCTETS_MAX: u64 = 400;

#[test]
fn whatever_happens_tunnels_do_what_the_model_says() {
    let number = |name, default| {
        std::env::var(name)
            .map_or(default, |text| text.parse().expect("a number in the environment"))
    };
    let first = number("ADIT_SEED", 0);
    for seed in first..first + number("ADIT_SEEDS", SEEDS) {
        let _said = SaysSeed(seed);
        check(&octets(seed));
    }
}

/// Says the seed of a run that fails.
struct SaysSeed(u64);

impl Drop for SaysSeed {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the run that failed is ADIT_SEED={} ADIT_SEEDS=1", self.0);
        }
    }
}

/// Octets that the seed decides (SplitMix64: Steele, Lea and Flood, 2014).
fn octets(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let len = next() % OCTETS_MAX;
    (0..len).map(|_| next().to_le_bytes()[0]).collect()
}
