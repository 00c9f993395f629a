//! A line as a QR code, for whoever would rather point a phone at it than type it.

use std::io::IsTerminal as _;

use qrcode::{Color, EcLevel, QrCode};

use super::modes;

/// Columns and rows of light around it, without which it is not read.
const MARGIN: usize = 4;
/// Black on white, whatever the colours of the terminal are.
const COLOURS: (&str, &str) = ("\x1b[38;5;16;48;5;231m", "\x1b[0m");

/// The light and dark squares of a text.
pub(super) struct Squares {
    dark: Vec<bool>,
    width: usize,
}

impl Squares {
    /// `None` for a text that no code can hold.
    pub(super) fn of(text: &str) -> Option<Self> {
        // A screen does not wear off: the least correction is the smallest code.
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        Some(Self {
            width: code.width(),
            dark: code
                .into_colors()
                .into_iter()
                .map(|colour| colour == Color::Dark)
                .collect(),
        })
    }

    /// Columns that it takes.
    pub(super) const fn columns(&self) -> usize {
        self.width + 2 * MARGIN
    }

    /// Two rows of squares in one of characters. Without colours light ones are drawn: most terminals are dark.
    pub(super) fn lines(&self, is_coloured: bool) -> String {
        let rows = (0..self.columns()).step_by(2).map(|upper| {
            let half = |column| match (
                self.is_dark(column, upper) == is_coloured,
                self.is_dark(column, upper + 1) == is_coloured,
            ) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            };
            let row: String = (0..self.columns()).map(half).collect();
            if is_coloured {
                format!("{}{row}{}", COLOURS.0, COLOURS.1)
            } else {
                row
            }
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    fn is_dark(&self, column: usize, row: usize) -> bool {
        let inside = |at: usize| at.checked_sub(MARGIN).filter(|at| *at < self.width);
        match (inside(column), inside(row)) {
            (Some(column), Some(row)) => self.dark[row * self.width + column],
            _ => false,
        }
    }
}

/// May standard output be given colours?
pub(super) fn has_colours() -> bool {
    std::io::stdout().is_terminal() && modes::has_styles()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera sees: `true` where it is dark.
    fn seen(lines: &str, is_coloured: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in lines.lines() {
            let line = line.trim_start_matches(COLOURS.0);
            let line = line.trim_end_matches(COLOURS.1);
            let drawn = |halves: [char; 2]| -> Vec<bool> {
                line.chars()
                    .map(|c| (c == '█' || halves.contains(&c)) == is_coloured)
                    .collect()
            };
            rows.push(drawn(['▀', '▀']));
            rows.push(drawn(['▄', '▄']));
        }
        rows
    }

    #[test]
    fn the_squares_are_those_of_the_text_with_light_around_them() {
        let text = "p2pfs peer --tracker 192.0.2.2 --tracker-key skeu-3vci-4jc6-d3hp";
        let squares = Squares::of(text).unwrap();
        let code = QrCode::with_error_correction_level(text, EcLevel::L).unwrap();
        let width = code.width();
        assert_eq!(squares.columns(), width + 8);
        for is_coloured in [true, false] {
            let rows = seen(&squares.lines(is_coloured), is_coloured);
            assert_eq!(rows.len(), (width + 8).next_multiple_of(2));
            for (y, row) in rows.iter().enumerate() {
                assert_eq!(row.len(), width + 8);
                for (x, is_dark) in row.iter().enumerate() {
                    let is_inside = (4..width + 4).contains(&x) && (4..width + 4).contains(&y);
                    let wanted = is_inside && code[(x - 4, y - 4)] == Color::Dark;
                    assert_eq!(*is_dark, wanted, "{x} {y} {is_coloured}");
                }
            }
        }
        assert!(Squares::of(&"x".repeat(4000)).is_none());
    }
}
