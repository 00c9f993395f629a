//! The plain way: all folded names in one text, read from its beginning for each rank.

use memchr::memmem::Finder;
use p2pfs::wire::text::{FileName, fold};

/// Folded names, a line each.
#[derive(Default)]
pub(crate) struct Scan {
    text: Vec<u8>,
    starts: Vec<usize>,
}

impl Scan {
    pub(crate) fn insert(&mut self, name: &FileName) {
        self.starts.push(self.text.len());
        self.text.extend_from_slice(fold(name.as_str()).as_bytes());
        self.text.push(b'\n');
    }

    /// The first `limit` names that contain `term`: those that are it or begin with it, then the others.
    pub(crate) fn search(&self, term: &str, limit: usize) -> Vec<usize> {
        let term = fold(term);
        let finder = Finder::new(&term);
        let mut found = Vec::new();
        for is_start in [true, false] {
            let mut line = 0;
            while line < self.starts.len() && found.len() < limit {
                let start = self.starts[line];
                let Some(offset) = finder.find(&self.text[start..]) else {
                    break;
                };
                let at = start + offset;
                line = self.starts.partition_point(|start| *start <= at);
                if (self.starts[line - 1] == at) == is_start {
                    found.push(line - 1);
                }
            }
        }
        found
    }
}
