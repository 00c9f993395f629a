//! The next piece: rarest first; none asked twice before the end game.
//!
//! Among equally rare pieces the order goes round the file from a place of its own for each download: so
//! that a crowd of downloaders does not ask one seeder for the same pieces, and disks read ahead.

use std::collections::BTreeSet;

use crate::wire::pieces::{Bitfield, Layout, PieceIndex};

/// The pieces that nobody was asked for yet.
#[derive(Debug)]
pub struct Picker {
    layout: Layout,
    start: u32,
    /// How many sources have each piece.
    copies: Vec<u16>,
    /// By rarity, then by distance from the start.
    free: BTreeSet<(u16, u32)>,
}

impl Picker {
    /// All pieces of `layout`; `random` chooses where to begin.
    #[must_use]
    pub fn new(layout: Layout, random: u32) -> Self {
        let count = layout.count();
        let start = if count == 0 { 0 } else { random % count };
        let free = (0..count).map(|distance| (0, distance)).collect();
        Self {
            layout,
            start,
            copies: vec![0; count as usize],
            free,
        }
    }

    /// A source came that has these pieces.
    pub fn add_copies(&mut self, pieces: &Bitfield) {
        self.change_copies(pieces, |copies| copies.saturating_add(1));
    }

    /// A source has this piece, too.
    pub fn add_copy(&mut self, piece: PieceIndex) {
        self.change_copy(piece, |copies| copies.saturating_add(1));
    }

    /// A source does not have this piece after all.
    pub fn remove_copy(&mut self, piece: PieceIndex) {
        self.change_copy(piece, |copies| copies.saturating_sub(1));
    }

    /// A source went that had these pieces.
    pub fn remove_copies(&mut self, pieces: &Bitfield) {
        self.change_copies(pieces, |copies| copies.saturating_sub(1));
    }

    /// Takes the best piece that a source with these pieces can be asked for.
    pub fn take(&mut self, pieces: &Bitfield) -> Option<PieceIndex> {
        let key = *self
            .free
            .iter()
            .find(|(_, distance)| pieces.has(self.piece_at(*distance)))?;
        self.free.remove(&key);
        Some(self.piece_at(key.1))
    }

    /// A piece that was taken is free again.
    pub fn put_back(&mut self, piece: PieceIndex) {
        self.free.insert(self.key(piece));
    }

    /// A piece is here; it is not asked for again.
    pub fn remove(&mut self, piece: PieceIndex) {
        self.free.remove(&self.key(piece));
    }

    /// Are there pieces that nobody was asked for?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    fn change_copies(&mut self, pieces: &Bitfield, change: impl Fn(u16) -> u16) {
        for piece in pieces.iter() {
            self.change_copy(piece, &change);
        }
    }

    fn change_copy(&mut self, piece: PieceIndex, change: impl Fn(u16) -> u16) {
        let was_free = self.free.remove(&self.key(piece));
        self.copies[piece.as_usize()] = change(self.copies[piece.as_usize()]);
        if was_free {
            self.free.insert(self.key(piece));
        }
    }

    fn key(&self, piece: PieceIndex) -> (u16, u32) {
        let count = self.layout.count();
        let distance = (piece.get() + (count - self.start)) % count;
        (self.copies[piece.as_usize()], distance)
    }

    fn piece_at(&self, distance: u32) -> PieceIndex {
        let count = u64::from(self.layout.count());
        let index = (u64::from(self.start) + u64::from(distance)) % count;
        let index = u32::try_from(index).expect("below the count, which is a u32");
        self.layout.piece(index).expect("below the count")
    }
}

#[cfg(test)]
mod tests {
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
        let all = Bitfield::full(layout);
        let order: Vec<u32> = std::iter::from_fn(|| picker.take(&all))
            .map(PieceIndex::get)
            .collect();
        assert_eq!(order, [3, 4, 0, 1, 2]);
        assert!(picker.is_empty());
        picker.put_back(layout.piece(0).unwrap());
        assert_eq!(picker.take(&all), layout.piece(0));
    }

    #[test]
    fn rare_pieces_come_first() {
        let layout = layout(4);
        let mut picker = Picker::new(layout, 0);
        let (all, some) = (Bitfield::full(layout), field(layout, &[0, 1]));
        picker.add_copies(&all);
        picker.add_copies(&some);
        assert_eq!(picker.take(&all).map(PieceIndex::get), Some(2));
        assert_eq!(
            picker.take(&some).map(PieceIndex::get),
            Some(0),
            "only what the source has"
        );
        picker.remove_copies(&all);
        picker.remove(layout.piece(1).unwrap());
        assert_eq!(picker.take(&all).map(PieceIndex::get), Some(3));
        assert_eq!(picker.take(&all), None);
    }

    #[test]
    fn a_file_without_bytes_has_nothing_to_pick() {
        let layout = layout(0);
        assert_eq!(Picker::new(layout, 7).take(&Bitfield::full(layout)), None);
    }
}
