//! Where what lies in a foreign folder goes: names that are harmless on every system, no two of them one.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::name::safe_inner_name;
use crate::wire::folder::{Listing, Node};
use crate::wire::text::fold;

/// Names that are tried at a time when two of a folder are one on some systems.
const MAX_CLASHES: u32 = 16;

/// Where each entry goes, and how many bear another name than where they come from.
#[must_use]
pub fn places(listing: &Listing) -> (Vec<PathBuf>, usize) {
    // What each foreign folder is called here, and the names that are taken in each of ours.
    let mut folders: HashMap<String, PathBuf> = HashMap::from([(String::new(), PathBuf::new())]);
    let mut taken: HashSet<(PathBuf, String)> = HashSet::new();
    // Which number a name gets that clashes.
    let mut copies: HashMap<(PathBuf, String), u32> = HashMap::new();
    let mut renamed = 0;
    let mut paths = Vec::with_capacity(listing.entries().len());
    for entry in listing.entries() {
        let (mut foreign, mut own) = (String::new(), PathBuf::new());
        let mut components = entry.path.components().peekable();
        while let Some(component) = components.next() {
            if !foreign.is_empty() {
                foreign.push('/');
            }
            foreign.push_str(component);
            let is_folder = components.peek().is_some() || entry.node == Node::EmptyFolder;
            if let Some(known) = folders.get(&foreign).filter(|_| is_folder) {
                own.clone_from(known);
                continue;
            }
            let plain = (own.clone(), fold(&safe_inner_name(component, 1)));
            let next = copies.entry(plain).or_insert(1);
            let mut is_free = |name: &String| taken.insert((own.clone(), fold(name)));
            let name = (*next..next.saturating_add(MAX_CLASHES))
                .map(|copy| safe_inner_name(component, copy))
                .inspect(|_| *next += 1)
                .find(&mut is_free);
            // Names that are made to clash: told apart by where they stand.
            let name = name.unwrap_or_else(|| {
                let mut others = (0_u32..).map(|number| format!("_{}_{number}", paths.len()));
                others.find(&mut is_free).unwrap_or_default()
            });
            renamed += usize::from(name != component);
            own.push(name);
            if is_folder {
                folders.insert(foreign.clone(), own.clone());
            }
        }
        paths.push(own);
    }
    (paths, renamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::folder::{Entry, FileEntry, Modified};
    use crate::wire::id::ContentId;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.parse().unwrap(),
            node: Node::File(FileEntry {
                len: 1,
                content: ContentId([1; 32]),
                is_executable: false,
                modified: Modified::default(),
            }),
        }
    }

    #[test]
    fn names_are_harmless_and_no_two_are_one() {
        let names = ["A", "a", "CON", "x:y", "x?y", "\\up", "dir/A", "DIR/a"];
        let listing = Listing::new(names.iter().map(|name| entry(name)).collect()).unwrap();
        let (paths, renamed) = places(&listing);
        let folded: HashSet<_> = paths
            .iter()
            .map(|path| fold(&path.to_string_lossy()))
            .collect();
        assert_eq!(folded.len(), names.len(), "{paths:?}");
        assert!(renamed >= 5, "{paths:?}");
        for path in &paths {
            assert!(path.components().count() <= 2, "{path:?}");
            assert!(
                !path.to_string_lossy().contains([':', '\\', '?']),
                "{path:?}"
            );
        }
    }

    /// A name that was made to differ is told apart from one that was so from the start, whatever its case.
    #[test]
    fn a_number_that_is_taken_in_another_case_is_not_given_again() {
        let names = ["B", "B (2)", "b"];
        let listing = Listing::new(names.iter().map(|name| entry(name)).collect()).unwrap();
        let (paths, _) = places(&listing);
        let folded: HashSet<_> = paths
            .iter()
            .map(|path| fold(&path.to_string_lossy()))
            .collect();
        assert_eq!(folded.len(), names.len(), "{paths:?}");
    }

    #[test]
    fn many_names_that_clash_are_told_apart() {
        // All of them become underscores.
        let odd = ['?', '*', '|', '<', '>', '"', ':', '\\'];
        let name =
            |number: usize| -> String { (0..4).map(|at| odd[number >> (3 * at) & 7]).collect() };
        let mut entries: Vec<_> = (0..4096).map(|number| entry(&name(number))).collect();
        entries.extend((0..4096).map(|number| entry(&number.to_string())));
        let listing = Listing::new(entries).unwrap();
        let (paths, _) = places(&listing);
        let different: HashSet<_> = paths.iter().collect();
        assert_eq!(different.len(), 8192);
    }
}
