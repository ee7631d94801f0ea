//! Keys as hexadecimal digits, without branches or tables that depend on them.

use zeroize::Zeroizing;

/// What follows '9' in the digits is this far from it.
const GAP: u8 = b'a' - b'9' - 1;

/// Writes `octets` in lowercase digits behind `text`.
pub(super) fn push(text: &mut String, octets: &[u8]) {
    for octet in octets {
        for nibble in [octet >> 4, octet & 15] {
            text.push(char::from(b'0' + nibble + u8::from(nibble > 9) * GAP));
        }
    }
}

/// Reads a key of 64 digits, uppercase or lowercase.
pub(super) fn parse(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut key = Zeroizing::new([0; 32]);
    if pairs.len() != key.len() || !rest.is_empty() {
        return None;
    }
    let mut valid = true;
    for (octet, pair) in key.iter_mut().zip(pairs) {
        let [(high, first), (low, second)] = pair.map(nibble);
        *octet = high << 4 | low;
        valid &= first & second;
    }
    valid.then_some(key)
}

/// The value of a digit, and whether it is one.
fn nibble(digit: u8) -> (u8, bool) {
    let decimal = digit.wrapping_sub(b'0');
    let letter = (digit | 0x20).wrapping_sub(b'a');
    let (is_decimal, is_letter) = (decimal < 10, letter < 6);
    let value =
        (u8::from(is_decimal) * (decimal & 15)) | (u8::from(is_letter) * ((letter & 7) + 10));
    (value, is_decimal | is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_written_and_read() {
        for chunk in (0..=255_u8).collect::<Vec<_>>().as_chunks::<32>().0 {
            let mut text = String::new();
            push(&mut text, chunk);
            let expected: String = chunk.iter().map(|octet| format!("{octet:02x}")).collect();
            assert_eq!(text, expected);
            assert_eq!(*parse(&text).unwrap(), *chunk);
            assert_eq!(*parse(&text.to_uppercase()).unwrap(), *chunk);
        }
    }

    #[test]
    fn only_digits_are_read_and_only_64() {
        let zeros = "0".repeat(64);
        for octet in 0..128_u8 {
            let text = zeros.replacen('0', &char::from(octet).to_string(), 1);
            assert_eq!(parse(&text).is_some(), octet.is_ascii_hexdigit(), "{octet}");
        }
        for length in [0, 2, 62, 63, 65, 66] {
            assert!(parse(&"0".repeat(length)).is_none());
        }
    }
}
