//! Folders that travel between real peers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2pfs::peer::connection::{Reader, Writer};
use p2pfs::wire::control::PublicationKind;
use p2pfs::wire::folder::{Entry, FileEntry, Listing, Modified, Node};
use p2pfs::wire::id::ContentId;
use p2pfs::wire::transfer::{FileSet, Frame, Opened};

use crate::support::member::Member;
use crate::support::mounts::{Mounts, fill};
use crate::support::terminal::Terminal;
use crate::support::{Group, Process, names_in, only_fetching, text, wait_until};

const MIB: u64 = 1 << 20;

/// Everything below `dir`: of files their bytes, time and executable bit.
type Tree = BTreeMap<String, Option<(blake3::Hash, i64, i64, bool)>>;

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            let known = path.symlink_metadata().unwrap();
            if known.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(&path).unwrap()).unwrap();
                let is_executable = known.permissions().mode() & 0o100 != 0;
                let facts = (
                    hasher.finalize(),
                    known.mtime(),
                    known.mtime_nsec(),
                    is_executable,
                );
                found.insert(name, Some(facts));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn assert_equal(one: &Tree, two: &Tree) {
    let differs = |(name, facts): &(&String, _)| two.get(*name) != Some(*facts);
    let differing: Vec<_> = one.iter().filter(differs).map(|(name, _)| name).collect();
    assert!(
        differing.is_empty() && one.len() == two.len(),
        "{differing:?}"
    );
}

/// A folder of many small files, a few large ones, empty ones, deep ones, and one that can be run.
fn make_folder(group: &Group) -> std::path::PathBuf {
    let root = group.folder("talks");
    for number in 0_u64..1500 {
        let name = format!("talks/{}/{number}", number % 7);
        group.file(&name, 1 + number * 7 % 5000, 3);
    }
    group.file("talks/large/one", 3 * MIB + 5, 4);
    group.file("talks/large/two", MIB + 1, 5);
    group.file("talks/a/b/c/d/exactly", MIB, 6);
    File::create(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("hollow/inside")).unwrap();
    let tool = group.file("talks/tool.sh", 20, 7);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    File::open(&tool)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 7))
        .unwrap();
    root
}

#[test]
fn a_folder_arrives_as_one_and_equal() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let mut seeder = group.peer("seeder", &address, &["--share", root.to_str().unwrap()]);
    seeder.wait_for("Sharing talks/, 1505 files");
    let mut leecher = group.peer("leecher", &address, &[]);
    leecher.say("download talks");
    let said = leecher.wait_for("Download successful");
    assert!(
        said.contains("1505 files") && said.contains("from 1 peer, verified"),
        "{said}"
    );
    let fetched = group.path("leecher/downloaded_talks");
    assert_equal(&tree(&fetched), &tree(&root));
    assert_eq!(names_in(&group.path("leecher")), ["downloaded_talks"]);

    // One in which nothing lies has the rights of other new folders, too.
    let bare = group.folder("bare");
    seeder.say("add bare");
    seeder.wait_for("Sharing bare/");
    leecher.say("download bare");
    leecher.wait_for("Download successful");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
    assert_eq!(mode(&group.path("leecher/downloaded_bare")), mode(&bare));

    // It is shared on under its name, and what is there is not replaced.
    seeder.say("quit");
    seeder.exit_within(Duration::from_secs(5));
    wait_until("the folder to be shared on", || {
        leecher.say("list");
        leecher.output().contains("talks/")
    });
    let out = group.folder("out");
    fs::write(out.join("downloaded_talks"), "mine").unwrap();
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_equal(&tree(&out.join("downloaded_talks (2)")), &tree(&root));
    assert_eq!(
        fs::read_to_string(out.join("downloaded_talks")).unwrap(),
        "mine"
    );
}

#[test]
fn row_66_a_key_is_never_shared() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("home/file", 10, 1);
    group.file("home/state/peer/identity.key", 32, 2);
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("add home");
    ana.wait_for("home/state/peer is skipped: p2pfs keeps its keys there");
    ana.wait_for("Sharing home/, 1 file, 10 B");
    for path in ["home/state/peer", "home/state/peer/identity.key"] {
        ana.say(&format!("add {path}"));
        ana.wait_for(&format!("{path}: p2pfs keeps its keys there"));
    }
}

#[test]
fn a_killed_download_of_a_folder_goes_on_and_ends_right() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let rate = ["--up-limit", "4MiB"];
    let share = ["--share", root.to_str().unwrap()];
    let mut seeder = group.peer("seeder", &address, &[&share[..], &rate].concat());
    seeder.wait_for("Sharing");
    let out = group.folder("out");
    let args = [
        "get",
        "talks",
        "--tracker",
        &address,
        "--port",
        "0",
        "--name",
        "bob",
        "--out",
        out.to_str().unwrap(),
        "--json",
    ];
    let mut here = 0;
    for _ in 0..3 {
        let mut leecher = group.start("bob", &args);
        wait_until("files to come", || files_below(&out) > here + 100);
        leecher.kill();
        assert!(
            names_in(&out)
                .iter()
                .all(|name| name.starts_with(".p2pfs-"))
        );
        let now = files_below(&out);
        assert!(now >= here, "{now} files of {here}");
        here = now;
    }
    seeder.say("limit up off");
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("were here"),
        "{}",
        text(&output.stdout)
    );
    assert_equal(&tree(&out.join("downloaded_talks")), &tree(&root));
    assert_eq!(names_in(&out), ["downloaded_talks"]);
}

fn files_below(dir: &Path) -> usize {
    let mut count = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count
}

#[test]
fn two_peers_share_the_work_on_a_folder_and_one_may_lose_a_file() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let copy = group.path("copy/talks");
    fs::create_dir_all(&copy).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(root.join("."))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let mut one = group.peer("one", &address, &["--share", root.to_str().unwrap()]);
    let mut two = group.peer("two", &address, &["--share", copy.to_str().unwrap()]);
    one.wait_for("Sharing");
    two.wait_for("Sharing");
    let expected = tree(&root);
    // Gone behind the back of the one that shares it: it cannot serve the whole run any more.
    fs::remove_file(root.join("3/3")).unwrap();
    let out = group.folder("out");
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_equal(&tree(&out.join("downloaded_talks")), &expected);
}

#[test]
fn cancelling_a_folder_leaves_nothing() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let mut seeder = group.peer(
        "seeder",
        &address,
        &["--share", root.to_str().unwrap(), "--up-limit", "1MiB"],
    );
    seeder.wait_for("Sharing");
    let mut leecher = group.peer("leecher", &address, &[]);
    leecher.say("download -b talks");
    let dir = group.path("leecher");
    wait_until("files to come", || files_below(&dir) > 10);
    leecher.say("transfers");
    leecher.wait_for("talks");
    leecher.say("cancel 1");
    leecher.wait_for("Cancelled 1, talks");
    wait_until("all of it to be gone", || names_in(&dir).is_empty());
}

/// Ten files of ten bytes each, in one run.
fn small_files() -> (Listing, Vec<Vec<u8>>) {
    let files: Vec<Vec<u8>> = (0..10).map(|number| vec![number; 10]).collect();
    let entries = files.iter().enumerate().map(|(number, bytes)| Entry {
        path: number.to_string().parse().unwrap(),
        node: Node::File(FileEntry {
            len: bytes.len() as u64,
            content: ContentId(*blake3::hash(bytes).as_bytes()),
            is_executable: false,
            modified: Modified::default(),
        }),
    });
    (Listing::new(entries.collect()).unwrap(), files)
}

/// Which files were asked for, and of whom.
type Asked = Arc<Mutex<Vec<(usize, Vec<usize>)>>>;

/// Serves the listing, and of the files those that `has` says at that time.
async fn serve_files(
    mut reader: Reader,
    mut writer: Writer,
    number: usize,
    asked: Asked,
    has: impl Fn(usize, usize) -> bool,
) {
    let (listing, files) = small_files();
    let listing = listing.encode();
    let mut times = 0;
    while let Ok(Some(frame)) = reader.next().await {
        let sent = match frame {
            Frame::Open { file, .. } => {
                let (len, pieces) = (listing.len() as u64, None);
                let opened = Opened { len, pieces };
                writer.send(&Frame::Opened { file, opened }).await
            }
            Frame::Request { request, .. } => {
                let whole = Frame::Chunk {
                    request,
                    offset: 0,
                    is_last: true,
                    bytes: &listing,
                };
                writer.send(&whole).await
            }
            Frame::AskFiles { request, wanted } => {
                let is_wanted = |file: &usize| {
                    let wanted: Option<&FileSet> = wanted.files.as_ref();
                    wanted.is_none_or(|wanted| wanted.has(*file))
                };
                let wanted: Vec<usize> = (0..files.len()).filter(is_wanted).collect();
                asked.lock().unwrap().push((number, wanted.clone()));
                let here: Vec<usize> = wanted
                    .into_iter()
                    .filter(|file| has(times, *file))
                    .collect();
                times += 1;
                for file in &here {
                    let (offset, is_last) = (*file as u64 * 10, Some(file) == here.last());
                    let bytes = &files[*file];
                    let chunk = Frame::Chunk {
                        request,
                        offset,
                        is_last,
                        bytes,
                    };
                    let _ = writer.send(&chunk).await;
                }
                let (offset, is_last, bytes) = (0, true, &[][..]);
                let nothing = Frame::Chunk {
                    request,
                    offset,
                    is_last,
                    bytes,
                };
                match here.len() {
                    0 => writer.send(&nothing).await,
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn publish_small_files(member: &Member) -> String {
    let (listing, _) = small_files();
    let listing = listing.encode();
    let id = ContentId(*blake3::hash(&listing).as_bytes());
    let len = listing.len() as u64;
    member.publish_as("talks", id, len, PublicationKind::Folder);
    id.to_string()
}

fn assert_small_files(dir: &Path) {
    let (_, files) = small_files();
    for (number, bytes) in files.iter().enumerate() {
        assert_eq!(&fs::read(dir.join(number.to_string())).unwrap(), bytes);
    }
}

/// Shows: two sources that lack different files of a run complete it together, and nothing comes twice.
/// How: made of the library; one lacks every third file, the other one every second.
#[test]
fn two_that_lack_different_files_of_a_run_complete_it_together() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let asked = Asked::default();
    let _members = [2, 3].map(|lacks| {
        let mut member = Member::join(&address, &format!("lacks{lacks}"));
        let asked = Arc::clone(&asked);
        member.serve(move |reader, writer| {
            let has = move |_, file| file % lacks != 1;
            serve_files(reader, writer, lacks, Arc::clone(&asked), has)
        });
        publish_small_files(&member);
        member
    });
    // One file is lacked by both, at first.
    let mut third = Member::join(&address, "third");
    let both = Arc::clone(&asked);
    third.serve(move |reader, writer| {
        serve_files(reader, writer, 9, Arc::clone(&both), |_, file| {
            file == 7 || file == 1
        })
    });
    publish_small_files(&third);
    let out = group.folder("out");
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("verified"), "{said}");
    assert_small_files(&out.join("downloaded_talks"));
    let asked = asked.lock().unwrap();
    assert!(asked.len() >= 2, "{asked:?}");
    let (first, wanted) = &asked[0];
    assert_eq!(wanted.len(), 10, "{asked:?}");
    let (second, missing) = asked.iter().find(|(number, _)| number != first).unwrap();
    assert!(missing.len() < 10, "{second} is asked for {missing:?}");
}

/// Shows: a source that lacks a file is asked again when nobody else is there.
/// How: it has file 7 only when it is asked for the second time.
#[test]
fn one_that_lacked_a_file_is_asked_again_while_nobody_else_has_it() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let asked = Asked::default();
    let mut member = Member::join(&address, "late");
    let told = Arc::clone(&asked);
    member.serve(move |reader, writer| {
        let has = |times, file| times > 0 || file != 7;
        serve_files(reader, writer, 0, Arc::clone(&told), has)
    });
    publish_small_files(&member);
    let out = group.folder("out");
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_small_files(&out.join("downloaded_talks"));
    let asked = asked.lock().unwrap();
    assert_eq!(*asked, [(0, (0..10).collect()), (0, vec![7])]);
}

/// Shows: what we share ourselves is not fetched, whatever it is called and however small it is.
/// How: the downloader shares another folder with most of the small files and one of the large ones.
#[test]
fn small_and_large_files_that_are_shared_here_are_not_fetched() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let _seeder = group.sharer("seeder", &address, &[&root], &[]);
    let mut own_len = 3 * MIB + 5;
    group.file("own/one", own_len, 4);
    for number in 0_u64..1500 {
        if number % 7 != 3 {
            let len = 1 + number * 7 % 5000;
            own_len += len;
            group.file(&format!("own/{number}"), len, 3);
        }
    }
    let own = group.path("own");
    let own = ["--share", own.to_str().unwrap()];
    let mut leecher = group.peer("leecher", &address, &own);
    leecher.wait_for("Sharing");
    leecher.say("download talks");
    let line = leecher.wait_for("Download successful");
    let (before, _) = line.split_once(" MiB were here").expect(&line);
    let here: f64 = before.rsplit(' ').next().unwrap().parse().unwrap();
    let own_mib = own_len as f64 / MIB as f64;
    assert!(here > own_mib - 0.1, "{own_mib}: {line}");
    assert_equal(&tree(&group.path("leecher/downloaded_talks")), &tree(&root));
}

/// Shows: a folder that is known not to fit is not begun, and leaves nothing.
/// How: a disk of 4 MiB, with and without room for anything at all, and for one who shares some of its files.
#[test]
fn row_61_a_folder_that_does_not_fit_is_a_line_and_leaves_nothing() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let _seeder = group.sharer("seeder", &address, &[&root], &[]);
    let mounts = Mounts::new();
    let out = group.folder("out");
    mounts.run(&format!(
        "mount -t tmpfs -o size=4m tmpfs {}",
        out.display()
    ));
    let seen = mounts.see(&out);
    let exactly = root.join("a/b/c/d/exactly");
    let share = ["peer", "--share", exactly.to_str().unwrap()];
    let args = [&share[..], &only_fetching(&address, "carl", &out)].concat();
    let mut carl = mounts.start(&group, "carl", &args);
    carl.wait_for("Sharing");
    carl.say("download talks");
    carl.wait_for("it needs ");
    assert_eq!(names_in(&seen), [""; 0], "nothing was copied for it");
    drop(carl);
    for words in ["it needs ", "the disk is full"] {
        let mut get = mounts.command(&group, "bob");
        get.args(["get", "talks"])
            .args(only_fetching(&address, "bob", &out));
        let output = get.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(words), "\"{words}\" is missing in: {said}");
        let left = names_in(&seen);
        assert!(left.iter().all(|name| name == "filler"), "{left:?}");
        fill(&seen);
    }
}

/// Shows: a folder whose disk fills up in the middle waits, with one line, until there is room.
/// How: once while small files come, and once before a large one begins.
#[test]
fn row_62_a_folder_waits_while_the_disk_is_full() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    for number in 0..200 {
        group.file(&format!("talks/small/{number}"), 50_000, 3);
    }
    group.file("talks/two", 5 * MIB, 4);
    let root = group.path("talks");
    let other = group.file("other.bin", 10 * MIB, 5);
    let limit = ["--up-limit", "4MiB"];
    let _seeder = group.sharer("seeder", &address, &[&root, &other], &limit);
    let (mounts, elsewhere) = (Mounts::new(), group.folder("elsewhere"));
    for (name, here) in [("small", 30), ("large", 200)] {
        let out = group.folder(name);
        mounts.run(&format!(
            "mount -t tmpfs -o size=24m tmpfs {}",
            out.display()
        ));
        let seen = mounts.see(&out);
        let args = [&["peer"][..], &only_fetching(&address, name, &out)].concat();
        let mut bob: Process = mounts.start(&group, &format!("{name}.state"), &args);
        bob.wait_for("Joined");
        bob.say("download -b talks");
        wait_until("small files to come", || files_below(&seen) >= here + 2);
        let filler = fill(&seen);
        let line = bob.wait_for("paused");
        assert!(line.contains("talks"), "{line}");
        assert!(line.contains("full") || line.contains("it needs"), "{line}");
        // It is tried again while others come and go.
        bob.say("transfers");
        bob.wait_for("waiting: ");
        bob.say(&format!("download other.bin --out {}", elsewhere.display()));
        bob.wait_for("Download successful: other.bin");
        bob.say("transfers");
        bob.wait_for("waiting: ");
        fs::remove_file(filler).unwrap();
        bob.wait_for("Download successful: talks");
        assert_equal(&tree(&seen.join("downloaded_talks")), &tree(&root));
        assert_eq!(names_in(&seen), ["downloaded_talks"]);
        let said = bob.output();
        assert_eq!(said.matches("paused").count(), 1, "{said}");
        assert!(!said.contains("put aside"), "{said}");
    }
}

/// Shows: a folder whose directory is away for a moment waits, and goes on when that is back.
/// How: once while small files come, and once while a large one does.
#[test]
fn row_63_a_folder_waits_while_its_directory_is_away() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    for number in 0..200 {
        group.file(&format!("talks/small/{number}"), 50_000, 3);
    }
    group.file("talks/one", 4 * MIB, 4);
    group.file("talks/two", 4 * MIB, 5);
    let root = group.path("talks");
    let limit = ["--up-limit", "4MiB"];
    let _seeder = group.sharer("seeder", &address, &[&root], &limit);
    let passphrase = group.path("passphrase");
    let variables = [("P2PFS_PASSPHRASE_FILE", passphrase.to_str().unwrap())];
    for (name, here) in [("small", 30), ("large", 201)] {
        let (out, away) = (group.folder(name), group.path("away"));
        let args = [&["peer"][..], &only_fetching(&address, name, &out)].concat();
        let state = format!("{name}.state");
        let mut bob = Terminal::start_in(&group, &state, &args, &variables);
        bob.wait_for("Joined");
        bob.type_line("download talks/");
        wait_until("files to come", || files_below(&out) >= here);
        fs::rename(&out, &away).unwrap();
        bob.wait_for("paused: ");
        bob.wait_for("no such directory");
        bob.type_line("transfers");
        bob.wait_for("waiting: ");
        fs::rename(&away, &out).unwrap();
        bob.wait_for("Download successful: talks");
        assert_equal(&tree(&out.join("downloaded_talks")), &tree(&root));
        assert_eq!(names_in(&out), ["downloaded_talks"]);
    }
}

/// Two folders and a file bear one name: what a line says of a folder is what can be typed.
#[test]
fn a_folder_is_named_as_it_is_shown() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    for (name, seed) in [("a/many/one", 1), ("b/many/one", 2), ("c/many", 3)] {
        group.file(name, 10, seed);
    }
    let paths = ["a/many", "b/many", "c/many"].map(|name| group.path(name));
    let mut seeder = group.sharer(
        "seeder",
        &address,
        &paths.each_ref().map(|path| &**path),
        &[],
    );
    let once = |args: &[&str]| {
        let output = group.once(&address, args);
        let said = [text(&output.stdout), text(&output.stderr)].concat();
        (output.status.success(), said)
    };
    let (_, said) = once(&["search", "many"]);
    assert_eq!(said.matches("many").count(), 3, "{said}");
    let (_, said) = once(&["search", "many/"]);
    assert_eq!(said.matches("many/").count(), 2, "{said}");
    assert_eq!(said.matches("many").count(), 2, "{said}");
    let out = group.folder("out");
    let out = ["--out", out.to_str().unwrap()];
    let (is_done, said) = once(&[&["get", "many/"], &out[..]].concat());
    assert!(!is_done && said.contains("several contents"), "{said}");
    assert!(!said.contains("many#"), "the file is not meant: {said}");
    let choices: Vec<_> = said
        .split(|c: char| c.is_whitespace())
        .filter(|word| word.starts_with("many/#"))
        .collect();
    assert_eq!(choices.len(), 2, "{said}");
    for choice in choices {
        let (is_done, said) = once(&["info", choice]);
        assert!(is_done && said.contains("many/"), "{said}");
        let (is_done, said) = once(&[&["get", choice], &out[..]].concat());
        assert!(is_done, "{said}");
    }
    assert_eq!(names_in(&group.path("out")).len(), 2);
    seeder.say("remove many/");
    for _ in 0..2 {
        seeder.wait_for("Not sharing many/ any more");
    }
    let (is_done, said) = once(&["search", "many"]);
    assert!(is_done && !said.contains("many/"), "{said}");
}

/// Shows: whoever goes on with a folder sees how far the reading of what is here is, and need not wait for it.
/// How: what is here seems to be a file of 32 GiB, which takes long to hash.
#[test]
fn what_is_here_of_a_folder_is_hashed_in_view_and_can_be_paused_and_cancelled() {
    const LEN: u64 = 32 << 30;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let large = Entry {
        path: "large".parse().unwrap(),
        node: Node::File(FileEntry {
            len: LEN,
            content: ContentId([7; 32]),
            is_executable: false,
            modified: Modified::default(),
        }),
    };
    let listing = Listing::new(vec![large]).unwrap().encode();
    let id = ContentId(*blake3::hash(&listing).as_bytes());
    let len = listing.len() as u64;
    let mut member = Member::join(&address, "member");
    member.serve(move |mut reader, mut writer| {
        let listing = listing.clone();
        async move {
            while let Ok(Some(frame)) = reader.next().await {
                let answer = match frame {
                    Frame::Open { file, .. } => {
                        let opened = Opened { len, pieces: None };
                        Frame::Opened { file, opened }
                    }
                    Frame::Request { request, .. } => Frame::Chunk {
                        request,
                        offset: 0,
                        is_last: true,
                        bytes: &listing,
                    },
                    _ => continue,
                };
                if writer.send(&answer).await.is_err() {
                    return;
                }
            }
        }
    });
    member.publish_as("talks", id, len, PublicationKind::Folder);
    let mut leecher = group.peer("leecher", &address, &[]);
    let dir = group.path("leecher");
    let hidden = dir.join(format!(
        ".p2pfs-{}.folder",
        &blake3::Hash::from(id.0).to_hex()[..16]
    ));
    fs::create_dir(&hidden).unwrap();
    File::create(hidden.join("large"))
        .unwrap()
        .set_len(LEN)
        .unwrap();
    leecher.say("download -b talks");
    leecher.wait_for(" of 32.0 GiB read");
    leecher.say("pause 1");
    leecher.wait_for("Paused 1, talks");
    let free = || {
        let lock = File::open(&hidden).unwrap();
        lock.try_lock().is_ok()
    };
    wait_until("nobody to read it", free);
    assert!(hidden.join("large").exists(), "it is not known to be wrong");
    leecher.say("resume 1");
    leecher.wait_for("Resumed 1, talks");
    leecher.wait_for(" of 32.0 GiB read");
    let began = std::time::Instant::now();
    leecher.say("cancel 1");
    leecher.wait_for("Cancelled 1, talks");
    wait_until("all of it to be gone", || names_in(&dir).is_empty());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
