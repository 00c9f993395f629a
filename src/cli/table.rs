//! Rows in columns that fit the terminal; what is too long loses its middle.

use unicode_width::UnicodeWidthStr as _;

/// Fewest terminal columns to which a cell is cut while other columns could go instead.
const MIN_CUT: usize = 8;
/// Blanks between columns: usually, and where room is scarce.
const GAP: usize = 3;
const NARROW_GAP: usize = 1;

/// What becomes of cells that are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cells {
    /// They lose their middle.
    Cut,
    /// They are of no use in parts.
    Whole,
}

/// A column's head, and what becomes of it where room is scarce.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    cells: Cells,
    rank: u8,
}

impl Column {
    /// A column whose cells may be cut. Of several columns the one with the highest `rank` goes first.
    #[must_use]
    pub const fn cut(head: &'static str, rank: u8) -> Self {
        let cells = Cells::Cut;
        Self { head, cells, rank }
    }

    /// A column whose cells stay as they are, or go. `rank` is as above.
    #[must_use]
    pub const fn whole(head: &'static str, rank: u8) -> Self {
        let cells = Cells::Whole;
        Self { head, cells, rank }
    }
}

/// Rows under a header, in at most `width` terminal columns; the last column is not padded.
#[must_use]
pub fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let heads: Vec<String> = columns
        .iter()
        .map(|column| column.head.to_owned())
        .collect();
    let mut widths: Vec<usize> = heads.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let (shown, gap) = fit(columns, widths, width);
    let line = |row: &Vec<String>| {
        let mut text = String::new();
        let mut missing = 0;
        for (number, room) in &shown {
            let cell = cut(row.get(*number).map_or("", String::as_str), *room);
            text.extend(std::iter::repeat_n(' ', missing));
            text.push_str(&cell);
            missing = room.saturating_sub(cell.width()) + gap;
        }
        text.trim_end().to_owned()
    };
    let lines: Vec<_> = std::iter::once(&heads).chain(rows).map(line).collect();
    lines.join("\n")
}

/// The columns that are shown, each by its number and with its room, and the gap between them.
fn fit(
    columns: &[Column],
    widths: Vec<usize>,
    width: Option<usize>,
) -> (Vec<(usize, usize)>, usize) {
    let mut shown: Vec<_> = widths.into_iter().enumerate().collect();
    let Some(width) = width else {
        return (shown, GAP);
    };
    let is_cut = |number: usize| columns[number].cells == Cells::Cut;
    let gaps = |shown: &[(usize, usize)], gap| shown.len().saturating_sub(1) * gap;
    let fits_cut = |shown: &[(usize, usize)], gap| {
        let least = shown.iter().map(|(number, room)| {
            let most = if is_cut(*number) { MIN_CUT } else { usize::MAX };
            *room.min(&most)
        });
        least.sum::<usize>() + gaps(shown, gap) <= width
    };
    while shown.len() > 1 && !fits_cut(&shown, NARROW_GAP) {
        let least_wanted = (0..shown.len()).max_by_key(|at| columns[shown[*at].0].rank);
        shown.remove(least_wanted.unwrap_or_default());
    }
    if let [(_, only)] = shown.as_mut_slice() {
        *only = width.min(*only);
    }
    let gap = if fits_cut(&shown, GAP) {
        GAP
    } else {
        NARROW_GAP
    };
    let total = |shown: &[(usize, usize)]| {
        shown.iter().map(|(_, room)| room).sum::<usize>() + gaps(shown, gap)
    };
    while total(&shown) > width {
        let cuttable = shown.iter_mut().filter(|(number, _)| is_cut(*number));
        let Some((_, widest)) = cuttable.max_by_key(|(_, room)| *room) else {
            break;
        };
        *widest = widest.saturating_sub(1);
    }
    (shown, gap)
}

/// `text` in at most `room` terminal columns: its middle becomes `…`, so that the ending stays.
#[must_use]
pub fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let Some(rest) = room.checked_sub("…".width()) else {
        return String::new();
    };
    let clusters = clusters(text);
    let tail = count_within(clusters.iter().rev(), rest - rest / 2);
    let (front, tail) = clusters.split_at(clusters.len() - tail);
    let tail = tail.concat();
    let head = count_within(front.iter(), rest - tail.width());
    format!("{}…{tail}", front[..head].concat())
}

/// How many of the first `clusters` fit into `room`.
fn count_within<'a>(clusters: impl Iterator<Item = &'a &'a str>, room: usize) -> usize {
    let ends = clusters.scan(0, |end, cluster| {
        *end += cluster.width();
        Some(*end)
    });
    ends.take_while(|end| *end <= room).count()
}

/// Characters as people see them: each with the marks on it, flags and emoji with all their parts.
fn clusters(text: &str) -> Vec<&str> {
    let is_regional = |c: char| ('\u{1f1e6}'..='\u{1f1ff}').contains(&c);
    let mut clusters = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices().skip(1) {
        let end = at + c.len_utf8();
        let (before, own) = (&text[start..at], &text[at..end]);
        let is_flag = is_regional(c) && before.chars().map(is_regional).eq([true]);
        let is_mark = own.width() == 0;
        // What takes less room together than apart is one picture.
        let is_joined = text[start..end].width() < before.width() + own.width();
        if !(is_flag || is_mark || is_joined) {
            clusters.push(before);
            start = at;
        }
    }
    clusters.push(&text[start..]);
    clusters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::cut("NAME", 0),
        Column::whole("SIZE", 1),
        Column::cut("WHO", 2),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["talk.mp4", "173.0 MiB", "hans"]),
            row(["a name that is long.txt", "1 B", "yoda"]),
        ]
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let long = vec!["x".repeat(500), "1 B".to_owned(), "y".repeat(500)];
        assert!(table(&COLUMNS, &[long], None).ends_with(&"y".repeat(500)));
        assert!(table(&COLUMNS, &rows(), None).contains("a name that is long.txt   1 B"));
    }

    #[test]
    fn where_room_is_scarce_names_are_cut_and_then_columns_go() {
        for (width, wanted) in [
            (
                42,
                "NAME                      SIZE        WHO\n\
                 talk.mp4                  173.0 MiB   hans\n\
                 a name that is long.txt   1 B         yoda",
            ),
            (
                32,
                "NAME            SIZE        WHO\n\
                 talk.mp4        173.0 MiB   hans\n\
                 a name…ng.txt   1 B         yoda",
            ),
            (
                22,
                "NAME         SIZE\n\
                 talk.mp4     173.0 MiB\n\
                 a na…g.txt   1 B",
            ),
            (6, "NAME\nta…mp4\na …txt"),
            (1, "…\n…\n…"),
        ] {
            assert_eq!(table(&COLUMNS, &rows(), Some(width)), wanted, "{width}");
        }
    }

    #[test]
    fn a_cut_shows_the_ending_and_breaks_no_character() {
        for (text, room, wanted) in [
            ("talk.mp4", 8, "talk.mp4"),
            ("a long talk.mp4", 8, "a l….mp4"),
            ("a long talk.mp4", 1, "…"),
            ("a long talk.mp4", 0, ""),
            // Two columns each: one that does not fit leaves a blank column.
            ("名前名前.txt", 8, "名….txt"),
            ("名前", 2, "…"),
            ("e\u{301}e\u{301}e\u{301}e\u{301}", 3, "e\u{301}…e\u{301}"),
            ("👍🏽👍🏽👍🏽👍🏽", 5, "👍🏽…👍🏽"),
            ("🇵🇱🇩🇪🇫🇷🇮🇹", 5, "🇵🇱…🇮🇹"),
            ("❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}", 5, "❤\u{fe0f}…❤\u{fe0f}"),
        ] {
            assert_eq!(cut(text, room), wanted, "{text} in {room}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_never_takes_more_than_its_room(text in r"(\PC|[a-z]|\p{M}|👍🏽|🇵🇱|\u{200d}){0,40}", room in 0_usize..30) {
            prop_assert!(cut(&text, room).width() <= room);
            prop_assert_eq!(clusters(&text).concat(), text);
        }

        #[test]
        fn a_table_never_takes_more_than_its_room(
            rows in prop::collection::vec(prop::collection::vec(r"[a-z名👍]{0,40}", 3), 0..5),
            room in 1_usize..60,
        ) {
            for line in table(&COLUMNS, &rows, Some(room)).lines() {
                prop_assert!(line.width() <= room, "{}", line);
            }
        }
    }
}
