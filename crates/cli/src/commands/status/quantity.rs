//! Times and octets as people like to read them.

use std::time::Duration;

/// Units of time in seconds, the largest first.
const TIMES: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];

/// Multiples of an octet, the smallest first (IEC 80000-13).
const OCTETS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A time in its largest unit and the next: "1 min 3 s".
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let largest = TIMES.iter().position(|&(unit, _)| seconds >= unit).unwrap_or(TIMES.len() - 1);
    let (unit, name) = TIMES[largest];
    let first = format!("{} {name}", seconds / unit);
    match TIMES.get(largest + 1).map(|(smaller, name)| (seconds % unit / smaller, name)) {
        Some((count @ 1.., name)) => format!("{first} {count} {name}"),
        _ => first,
    }
}

/// Octets in the unit of which there is at least one: "1.4 MiB".
pub(super) fn octets(octets: u64) -> String {
    let Some(power) = octets.checked_ilog2().map(|log| log / 10).filter(|&power| power > 0) else {
        return format!("{octets} B");
    };
    let unit = 1_u128 << (10 * power);
    // Rounded down, so that no unit is reached that is not there.
    let tenths = u128::from(octets) * 10 / unit;
    let name = OCTETS.get(power as usize - 1).unwrap_or(&"EiB");
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (63, "1 min 3 s"),
            (3600, "1 h"),
            (3659, "1 h"),
            (7322, "2 h 2 min"),
            (86_399, "23 h 59 min"),
            (86_400 * 400 + 3600 * 5 + 59, "400 d 5 h"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn octets_have_one_decimal_from_1024_on() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_535, "1.4 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(octets(count), text);
        }
    }
}
