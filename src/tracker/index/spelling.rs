//! How a name is shown, told by what differs from its folded text: mostly a few capital letters.
//!
//! ```text
//! │ 0 │ a bit for each byte, the first one lowest: it is a capital; no zeros at the end │
//! │ 1 │ the name as it is shown │
//! ```

use std::borrow::Cow;

const CAPITALS: u8 = 0;
const WHOLE: u8 = 1;

/// Adds to `codes` how to make `shown` of `folded`.
pub(super) fn encode(shown: &[u8], folded: &[u8], codes: &mut Vec<u8>) {
    if !shown.eq_ignore_ascii_case(folded) {
        codes.push(WHOLE);
        codes.extend_from_slice(shown);
        return;
    }
    codes.push(CAPITALS);
    let bits = codes.len();
    for (number, _) in shown
        .iter()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_uppercase())
    {
        // Only up to the last capital.
        codes.resize(bits + number / 8 + 1, 0);
        codes[bits + number / 8] |= 1 << (number % 8);
    }
}

/// What was encoded.
pub(super) fn decode<'a>(code: &'a [u8], folded: &[u8]) -> Cow<'a, [u8]> {
    match code.split_first() {
        Some((&CAPITALS, bits)) => {
            let mut shown = folded.to_vec();
            for (number, byte) in shown.iter_mut().enumerate().take(bits.len() * 8) {
                if bits[number / 8] >> (number % 8) & 1 == 1 {
                    byte.make_ascii_uppercase();
                }
            }
            Cow::Owned(shown)
        }
        Some((_, shown)) => Cow::Borrowed(shown),
        None => Cow::Borrowed(&[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::text::fold;

    fn encoded(shown: &str) -> Vec<u8> {
        let mut codes = Vec::new();
        encode(shown.as_bytes(), fold(shown).as_bytes(), &mut codes);
        codes
    }

    #[test]
    fn capitals_take_a_bit_each() {
        assert_eq!(encoded("IMG_1.jpg"), [CAPITALS, 0b111]);
        assert_eq!(encoded("été A"), [CAPITALS, 0b100_0000]);
        assert_eq!(encoded("12345678A"), [CAPITALS, 0, 1]);
        assert_eq!(
            encoded("Été"),
            [&[WHOLE], "Été".as_bytes()].concat(),
            "not a letter of one byte"
        );
    }

    proptest! {
        #[test]
        fn a_name_is_shown_as_it_came(shown in "([a-zA-Z._0-9 ]{0,20}|.{0,20})") {
            let code = encoded(&shown);
            let folded = fold(&shown);
            let decoded = decode(&code, folded.as_bytes());
            prop_assert_eq!(decoded.as_ref(), shown.as_bytes());
            prop_assert!(code.len() <= 1 + shown.len());
        }
    }
}
