//! BLAKE3 of pieces and of the whole: does this piece belong to this id?
