//! The next piece: rarest first; none asked twice before the end game.
//!
//! Among equally rare pieces the order goes round the file from a place of its own for each download, so
//! that disks read ahead. In a crowd any of them may be next: downloaders who follow the same order meet, and
//! from there on ask one seeder for the same pieces at the same time.
//!
//! Pieces are bits, one set for each rarity, so that a choice costs a few words even where a crowd of sources
//! has little to offer. What a source has that has everything makes no piece rarer than another: it is not
//! counted.

use crate::wire::pieces::{Bitfield, Layout, PieceIndex};

/// The pieces that nobody was asked for yet.
#[derive(Debug)]
pub struct Picker {
    layout: Layout,
    start: u32,
    /// How many of the sources that came with a part have each piece, by distance from the start.
    copies: Vec<u16>,
    /// Those that nobody was asked for, by their copies.
    free: Vec<Set>,
    free_count: usize,
    /// Sources that came with a part: others download as well.
    crowd: usize,
    random: u32,
}

/// What one source has.
#[derive(Debug)]
pub struct Stock {
    pieces: Set,
    is_counted: bool,
}

/// Pieces by their distance from the start.
#[derive(Debug, Clone)]
struct Set {
    words: Vec<u64>,
    /// All words before this one are empty.
    first: usize,
}

impl Picker {
    /// All pieces of `layout`; `random` chooses where to begin.
    #[must_use]
    pub fn new(layout: Layout, random: u32) -> Self {
        let count = layout.count();
        Self {
            layout,
            start: if count == 0 { 0 } else { random % count },
            copies: vec![0; count as usize],
            free: vec![Set::full(count as usize)],
            free_count: count as usize,
            crowd: 0,
            random,
        }
    }

    /// A source came that has these pieces.
    #[must_use]
    pub fn add_stock(&mut self, pieces: &Bitfield) -> Stock {
        let count = self.copies.len();
        if pieces.is_full() {
            return Stock {
                pieces: Set::full(count),
                is_counted: false,
            };
        }
        self.crowd += 1;
        let mut stock = Stock {
            pieces: Set::empty(count),
            is_counted: true,
        };
        for piece in pieces.iter() {
            self.add_piece(&mut stock, piece);
        }
        stock
    }

    /// A source has this piece, too.
    pub fn add_piece(&mut self, stock: &mut Stock, piece: PieceIndex) {
        let at = self.distance(piece);
        if stock.pieces.insert(at) && stock.is_counted {
            self.change_copies(at, |copies| copies.saturating_add(1));
        }
    }

    /// A source does not have this piece after all; did it seem so?
    pub fn remove_piece(&mut self, stock: &mut Stock, piece: PieceIndex) -> bool {
        let at = self.distance(piece);
        let had = stock.pieces.remove(at);
        if had && stock.is_counted {
            self.change_copies(at, |copies| copies.saturating_sub(1));
        }
        had
    }

    /// A source went that had these pieces.
    pub fn remove_stock(&mut self, stock: &Stock) {
        if !stock.is_counted {
            return;
        }
        self.crowd -= 1;
        for at in (0..self.copies.len()).filter(|at| stock.pieces.has(*at)) {
            self.change_copies(at, |copies| copies.saturating_sub(1));
        }
    }

    /// Has the source this piece?
    #[must_use]
    pub fn is_in(&self, stock: &Stock, piece: PieceIndex) -> bool {
        stock.pieces.has(self.distance(piece))
    }

    /// Takes the best piece that a source with these pieces can be asked for.
    pub fn take(&mut self, stock: &Stock) -> Option<PieceIndex> {
        let from = if self.crowd == 0 { 0 } else { self.any() };
        let mut sets = self.free.iter_mut();
        let at = sets.find_map(|set| set.take_from(from, &stock.pieces))?;
        self.free_count -= 1;
        Some(self.piece_at(at))
    }

    /// A piece that was taken is free again.
    pub fn put_back(&mut self, piece: PieceIndex) {
        let at = self.distance(piece);
        self.free_count += usize::from(self.free_like(at).insert(at));
    }

    /// A piece is here; it is not asked for again.
    pub fn remove(&mut self, piece: PieceIndex) {
        let at = self.distance(piece);
        self.free_count -= usize::from(self.free_like(at).remove(at));
    }

    /// Pieces that nobody was asked for.
    #[must_use]
    pub const fn free_count(&self) -> usize {
        self.free_count
    }

    /// Are there sources that download as well?
    #[must_use]
    pub const fn has_crowd(&self) -> bool {
        self.crowd > 0
    }

    /// Some distance; each time another.
    fn any(&mut self) -> usize {
        // Numerical Recipes; nobody gains anything by guessing it.
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let share = (u64::from(self.random) * self.copies.len() as u64) >> 32;
        usize::try_from(share).expect("below the count")
    }

    fn change_copies(&mut self, at: usize, change: impl Fn(u16) -> u16) {
        let was_free = self.free_like(at).remove(at);
        self.copies[at] = change(self.copies[at]);
        if was_free {
            self.free_like(at).insert(at);
        }
    }

    /// The free pieces that are as rare as this one.
    fn free_like(&mut self, at: usize) -> &mut Set {
        let copies = usize::from(self.copies[at]);
        if self.free.len() <= copies {
            self.free.resize(copies + 1, Set::empty(self.copies.len()));
        }
        &mut self.free[copies]
    }

    fn distance(&self, piece: PieceIndex) -> usize {
        let (index, start) = (piece.as_usize(), self.start as usize);
        if index >= start {
            index - start
        } else {
            index + self.copies.len() - start
        }
    }

    fn piece_at(&self, distance: usize) -> PieceIndex {
        let index = (self.start as usize + distance) % self.copies.len();
        let index = u32::try_from(index).expect("below the count, which is a u32");
        self.layout.piece(index).expect("below the count")
    }
}

impl Set {
    fn empty(count: usize) -> Self {
        Self {
            words: vec![0; count.div_ceil(64)],
            first: count.div_ceil(64),
        }
    }

    fn full(count: usize) -> Self {
        let mut words = vec![u64::MAX; count.div_ceil(64)];
        if let (Some(last), rest @ 1..) = (words.last_mut(), count % 64) {
            *last = (1 << rest) - 1;
        }
        Self { words, first: 0 }
    }

    fn has(&self, at: usize) -> bool {
        self.words
            .get(at / 64)
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Tells whether it was new.
    fn insert(&mut self, at: usize) -> bool {
        let is_new = !self.has(at);
        self.words[at / 64] |= 1 << (at % 64);
        self.first = self.first.min(at / 64);
        is_new
    }

    /// Tells whether it was there.
    fn remove(&mut self, at: usize) -> bool {
        let had = self.has(at);
        self.words[at / 64] &= !(1 << (at % 64));
        had
    }

    /// Takes the first from `from` on, and round again, that is also in `other`.
    fn take_from(&mut self, from: usize, other: &Self) -> Option<usize> {
        while self.words.get(self.first) == Some(&0) {
            self.first += 1;
        }
        let at = self.find(from, other).or_else(|| self.find(0, other))?;
        self.remove(at);
        Some(at)
    }

    fn find(&self, from: usize, other: &Self) -> Option<usize> {
        let from = from.max(self.first * 64).max(other.first * 64);
        let mut mask = u64::MAX << (from % 64);
        let pairs = self.words.iter().zip(&other.words).enumerate();
        pairs.skip(from / 64).find_map(|(word, (one, two))| {
            let both = one & two & std::mem::replace(&mut mask, u64::MAX);
            (both != 0).then(|| word * 64 + both.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn layout(pieces: u64) -> Layout {
        Layout::new(pieces << 20).unwrap()
    }

    fn field(layout: Layout, pieces: &[u32]) -> Bitfield {
        let mut field = Bitfield::empty(layout);
        for piece in pieces {
            field.insert(layout.piece(*piece).unwrap());
        }
        field
    }

    #[test]
    fn each_piece_is_taken_once_from_the_start_around() {
        let layout = layout(5);
        let mut picker = Picker::new(layout, 13);
        let all = picker.add_stock(&Bitfield::full(layout));
        let order: Vec<u32> = std::iter::from_fn(|| picker.take(&all))
            .map(PieceIndex::get)
            .collect();
        assert_eq!(order, [3, 4, 0, 1, 2]);
        assert_eq!(picker.free_count(), 0);
        picker.put_back(layout.piece(0).unwrap());
        assert_eq!(picker.take(&all), layout.piece(0));
    }

    #[test]
    fn rare_pieces_come_first() {
        let layout = layout(4);
        let mut picker = Picker::new(layout, 0);
        let mut all = picker.add_stock(&field(layout, &[0, 1, 2]));
        picker.add_piece(&mut all, layout.piece(3).unwrap());
        picker.add_piece(&mut all, layout.piece(3).unwrap());
        let some = picker.add_stock(&field(layout, &[0, 1]));
        picker.remove(layout.piece(2).unwrap());
        assert_eq!(picker.take(&all).map(PieceIndex::get), Some(3));
        picker.remove(layout.piece(1).unwrap());
        assert_eq!(
            picker.take(&some).map(PieceIndex::get),
            Some(0),
            "only what the source has"
        );
        picker.remove_stock(&all);
        assert_eq!(picker.take(&all), None);
    }

    /// Both have met at piece 0; their ways part.
    #[test]
    fn in_a_crowd_two_do_not_follow_the_same_order() {
        let layout = layout(1000);
        let order = |random| {
            let mut picker = Picker::new(layout, random);
            let all = picker.add_stock(&Bitfield::full(layout));
            let _other = picker.add_stock(&Bitfield::empty(layout));
            let first = std::iter::from_fn(|| picker.take(&all)).take(100);
            first.map(PieceIndex::get).collect::<BTreeSet<u32>>()
        };
        let both = order(0).intersection(&order(1000)).count();
        assert!(both < 30, "{both} of 100");
    }

    #[test]
    fn a_file_without_bytes_has_nothing_to_pick() {
        let layout = layout(0);
        let mut picker = Picker::new(layout, 7);
        let all = picker.add_stock(&Bitfield::full(layout));
        assert_eq!(picker.take(&all), None);
    }

    proptest! {
        /// Beside a set of all free pieces that is searched for each choice.
        #[test]
        fn one_of_the_rarest_is_taken(
            pieces in 1_u32..200, random: u32, steps in prop::collection::vec((0_usize..4, 0_u8..6, any::<u32>()), 0..300),
        ) {
            let layout = layout(u64::from(pieces));
            let mut picker = Picker::new(layout, random);
            let mut free: BTreeSet<u32> = (0..pieces).collect();
            let mut sources: Vec<(BTreeSet<u32>, Stock)> = (0..4).map(|_| (BTreeSet::new(), picker.add_stock(&Bitfield::empty(layout)))).collect();
            let whole = picker.add_stock(&Bitfield::full(layout));
            for (source, action, number) in steps {
                let (number, (has, stock)) = (number % pieces, &mut sources[source]);
                let piece = layout.piece(number).unwrap();
                match action {
                    0 | 1 => {
                        has.insert(number);
                        picker.add_piece(stock, piece);
                        prop_assert!(picker.is_in(stock, piece));
                    }
                    2 => {
                        picker.remove_stock(stock);
                        *stock = picker.add_stock(&Bitfield::empty(layout));
                        has.clear();
                    }
                    3 => {
                        free.insert(number);
                        picker.put_back(piece);
                    }
                    4 => {
                        free.remove(&number);
                        picker.remove(piece);
                    }
                    _ => {
                        let copies = |piece: &u32| sources.iter().filter(|(has, _)| has.contains(piece)).count();
                        let has = |piece: &&u32| number % 3 == 0 || sources[source].0.contains(piece);
                        let rarest = free.iter().filter(has).map(copies).min();
                        let stock = if number % 3 == 0 { &whole } else { &sources[source].1 };
                        let taken = picker.take(stock).map(PieceIndex::get);
                        prop_assert_eq!(taken.as_ref().map(copies), rarest);
                        prop_assert!(taken.is_none_or(|taken| has(&&taken) && free.remove(&taken)));
                    }
                }
                prop_assert_eq!(picker.free_count(), free.len());
            }
        }
    }
}
