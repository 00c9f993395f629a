//! The word that was probably meant.

use std::cmp::Reverse;

/// The candidate that differs least from `word`, if it differs by no more than a third of its letters. Of
/// several, the one that begins most like it: people rarely get the first letters wrong.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) = candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .min_by_key(|(distance, candidate)| (*distance, Reverse(common_len(word, candidate))))?;
    (distance <= word.chars().count().max(3) / 3).then_some(best)
}

/// Letters at the beginning that are the same.
fn common_len(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// Letters that have to be added, dropped, changed, or swapped with their neighbour (Damerau's distance
/// over adjacent letters).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slips_are_understood_others_are_not() {
        let words = ["horse", "house", "battery", "staple"];
        for (typed, meant) in [
            ("hrose", Some("horse")),
            ("battrey", Some("battery")),
            ("stapel", Some("staple")),
            ("xyz", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
        assert_eq!(nearest("hourse", ["course", "horse"]), Some("horse"));
        assert_eq!(nearest("horse", []), None);
    }
}
