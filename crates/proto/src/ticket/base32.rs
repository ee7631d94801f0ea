//! Base32 (RFC 4648, section 6) in small letters and without padding, coded in constant time.

use zeroize::Zeroizing;

/// Bits of a character.
const BITS: usize = 5;

/// Appends the text of `octets` to `text`.
pub(super) fn encode(octets: &[u8], text: &mut String) {
    let (mut bits, mut count) = (0_u32, 0);
    for &octet in octets {
        bits = bits << 8 | u32::from(octet);
        count += 8;
        while count >= BITS {
            count -= BITS;
            text.push(symbol(bits >> count));
        }
    }
    if count > 0 {
        text.push(symbol(bits << (BITS - count)));
    }
}

/// Characters of the text of `octets` octets.
pub(super) const fn text_len(octets: usize) -> usize {
    (octets * 8).div_ceil(BITS)
}

/// The whole octets of `text`, and the bits behind them, which are zero unless the text is cut off or
/// damaged; none if a character is not among the 32.
pub(super) fn decode(text: &[u8]) -> Option<(Zeroizing<Vec<u8>>, u32)> {
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len() * BITS / 8));
    let (mut bits, mut count, mut wrong) = (0_u32, 0, 0);
    for &character in text {
        let (value, is_wrong) = value(character);
        wrong |= is_wrong;
        bits = bits << BITS | value;
        count += BITS;
        if count >= 8 {
            count -= 8;
            let [octet, ..] = (bits >> count).to_le_bytes();
            octets.push(octet);
        }
    }
    (wrong == 0).then_some((octets, bits & ((1 << count) - 1)))
}

/// The character for the lowest five bits: `a` to `z`, then `2` to `7`.
fn symbol(bits: u32) -> char {
    let [value, ..] = (bits & 31).to_le_bytes();
    // All ones from 26 on.
    let is_digit = 25_u8.wrapping_sub(value).cast_signed() >> 7;
    let letter = b'a' + value;
    char::from(letter.wrapping_sub(is_digit.cast_unsigned() & (b'a' + 26 - b'2')))
}

/// The five bits of a character; and all ones in the second if it is none of the 32.
fn value(character: u8) -> (u32, u32) {
    let is_letter = mask(character, b'a', b'z');
    let is_digit = mask(character, b'2', b'7');
    let character = u32::from(character);
    let letter = character.wrapping_sub(u32::from(b'a')) & is_letter;
    let digit = character.wrapping_sub(u32::from(b'2')).wrapping_add(26) & is_digit;
    (letter | digit, !(is_letter | is_digit))
}

/// All ones if `character` is among these, else zero.
fn mask(character: u8, first: u8, last: u8) -> u32 {
    let character = i32::from(character);
    let outside = (character - i32::from(first)) | (i32::from(last) - character);
    !(outside >> 31).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(octets: &[u8]) -> String {
        let mut text = String::new();
        encode(octets, &mut text);
        text
    }

    /// RFC 4648, section 10.
    #[test]
    fn the_texts_are_those_of_the_specification() {
        let texts = ["", "my", "mzxq", "mzxw6", "mzxw6yq", "mzxw6ytb", "mzxw6ytboi"];
        for (len, expected) in texts.into_iter().enumerate() {
            assert_eq!(text(&b"foobar"[..len]), expected);
            assert_eq!(text_len(len), expected.len());
        }
        let all = [0x00, 0x44, 0x32, 0x14, 0xc7, 0x42, 0x54, 0xb6, 0x35, 0xcf];
        assert_eq!(text(&all), "abcdefghijklmnop");
        let rest = [0x84, 0x65, 0x3a, 0x56, 0xd7, 0xc6, 0x75, 0xbe, 0x77, 0xdf];
        assert_eq!(text(&rest), "qrstuvwxyz234567");
    }

    #[test]
    fn only_thirty_two_characters_are_read() {
        let known = (0..=u8::MAX).filter(|&character| decode(&[character]).is_some());
        assert!(known.eq((b'2'..=b'7').chain(b'a'..=b'z')));
    }

    proptest! {
        #[test]
        fn octets_are_read_as_they_were_written(octets: Vec<u8>) {
            let text = text(&octets);
            prop_assert_eq!(text.len(), text_len(octets.len()));
            let (decoded, rest) = decode(text.as_bytes()).unwrap();
            prop_assert_eq!(&*decoded, &octets);
            prop_assert_eq!(rest, 0);
        }
    }
}
