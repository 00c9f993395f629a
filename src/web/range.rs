//! Which bytes of a file are asked for: one range (RFC 9110 § 14), or all of it.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of it: there is no header, or none that is understood.
    All,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Beyond,
}

/// Reads a `Range` header for a file of `len` bytes. Several ranges are answered with all of it, as is allowed.
#[must_use]
pub fn asked(header: Option<&[u8]>, len: u64) -> Asked {
    let text = header.and_then(|header| std::str::from_utf8(header).ok());
    let Some((first, last)) = text
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Asked::All;
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that are too many for a number are beyond any file.
        true if !text.is_empty() => Some(text.parse().unwrap_or(u64::MAX)),
        _ => None,
    };
    let range = match (number(first), number(last), first, last) {
        (Some(first), Some(last), ..) if first > last => return Asked::All,
        (Some(first), Some(last), ..) => first..last.saturating_add(1).min(len),
        (Some(first), None, _, "") => first..len,
        (None, Some(count), "", _) => len.saturating_sub(count)..len,
        _ => return Asked::All,
    };
    if range.start >= len || range.is_empty() {
        return Asked::Beyond;
    }
    Asked::Part(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        for (header, wanted) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-9", Asked::Part(0..10)),
            ("bytes=3-", Asked::Part(3..10)),
            ("bytes=-4", Asked::Part(6..10)),
            ("bytes=-40", Asked::Part(0..10)),
            ("bytes=5-99999999999999999999999", Asked::Part(5..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=99999999999999999999999-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-4", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("lines=0-1", Asked::All),
            ("", Asked::All),
        ] {
            assert_eq!(asked(Some(header.as_bytes()), 10), wanted, "{header}");
        }
        assert_eq!(asked(None, 10), Asked::All);
        assert_eq!(asked(Some(b"bytes=0-"), 0), Asked::Beyond);
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(header in "bytes=[0-9]{0,3}-[0-9]{0,3}|.*", len in 0_u64..100) {
            if let Asked::Part(range) = asked(Some(header.as_bytes()), len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
