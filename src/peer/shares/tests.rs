//! Shares on a real disk: what is served of them, and what is taken back.

use std::os::unix::fs::MetadataExt as _;

use super::offers::MAX_COPIES;
use super::*;
use crate::peer::readers::Reader;
use crate::wire::control::PublicationKind;
use crate::wire::folder::Listing;

async fn share(shares: &Shares, path: &Path) -> Shared {
    shares.add(path, None).await.unwrap()
}

#[tokio::test]
async fn a_share_has_the_id_that_b3sum_prints() {
    let dir = tempfile::tempdir().unwrap();
    let (shares, _withdrawn) = Shares::new(Background::default());
    for len in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20] {
        let path = dir.path().join(format!("file {len}"));
        std::fs::write(&path, vec![7; len]).unwrap();
        let shared = share(&shares, &path).await;
        assert_eq!(
            shared.file.content.0,
            *blake3::hash(&vec![7; len]).as_bytes()
        );
        let serving = shares.open(&shared.file.content, Reader::Own).unwrap();
        let mut bytes = vec![0; len];
        serving.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, vec![7; len]);
    }
    assert_eq!(shares.list().len(), 6);
}

#[tokio::test]
async fn a_file_that_changes_is_withdrawn_and_never_served_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "before").unwrap();
    let (shares, mut withdrawn) = Shares::new(Background::default());
    let shared = share(&shares, &path).await;
    let serving = shares.open(&shared.file.content, Reader::Own).unwrap();
    std::fs::write(&path, "after, and longer").unwrap();
    assert_eq!(serving.check(), Err(Gone));
    assert!(shares.open(&shared.file.content, Reader::Own).is_none() && shares.list().is_empty());
    assert_eq!(withdrawn.try_recv().unwrap().shared, shared);
    assert!(withdrawn.try_recv().is_err(), "told once");
}

#[tokio::test]
async fn a_deleted_file_is_withdrawn_when_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "here").unwrap();
    let (shares, mut withdrawn) = Shares::new(Background::default());
    let shared = share(&shares, &path).await;
    std::fs::remove_file(&path).unwrap();
    assert!(shares.open(&shared.file.content, Reader::Own).is_none());
    assert_eq!(withdrawn.try_recv().unwrap().shared, shared);
}

#[tokio::test]
async fn what_is_removed_is_not_served_even_when_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "here").unwrap();
    let (shares, _withdrawn) = Shares::new(Background::default());
    let shared = share(&shares, &path).await;
    let serving = shares.open(&shared.file.content, Reader::Own).unwrap();
    assert_eq!(shares.remove(|other| *other == shared), [shared]);
    assert_eq!(serving.check(), Err(Gone));
}

#[tokio::test]
async fn only_plain_files_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (shares, _withdrawn) = Shares::new(Background::default());
    for (path, reason) in [
        (fifo, "not a plain file"),
        (socket, "not a plain file"),
        (dir.path().join("gone"), "no such file"),
        (PathBuf::from("/dev/zero"), "not a plain file"),
    ] {
        let error = shares.add(&path, None).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(shares.list().is_empty());
}

fn read_all(shares: &Shares, content: &ContentId) -> Vec<u8> {
    let serving = shares.open(content, Reader::Own).unwrap();
    let layout = serving.tree().layout();
    let mut bytes = vec![0; usize::try_from(layout.len()).unwrap()];
    serving.read_at(&mut bytes, 0).unwrap();
    assert_eq!(*blake3::hash(&bytes).as_bytes(), content.0);
    bytes
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("talks/old/empty")).unwrap();
    for name in ["talks/a.txt", "talks/b.txt", "talks/old/a.txt"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    std::fs::copy(
        dir.path().join("talks/a.txt"),
        dir.path().join("talks/copy"),
    )
    .unwrap();
    dir
}

#[tokio::test]
async fn a_folder_is_one_share_and_serves_all_that_lies_in_it() {
    let dir = folder();
    let run = dir.path().join("talks/b.txt");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&run, mode).unwrap();
    let (shares, _withdrawn) = Shares::new(Background::default());
    let shared = share(&shares, &dir.path().join("talks")).await;
    assert_eq!(shares.list(), std::slice::from_ref(&shared));
    assert_eq!(shared.file.kind, PublicationKind::Folder);
    assert_eq!(shared.file.name.as_str(), "talks");
    let bytes = read_all(&shares, &shared.file.content);
    assert_eq!(bytes.len() as u64, shared.file.len);
    let listing = Listing::decode(&bytes).unwrap();
    let total = "talks/a.txt".len() * 3 + "talks/old/a.txt".len();
    assert_eq!(shared.contents.len, total as u64);
    assert_eq!(
        (listing.total_len(), shared.contents.files),
        (total as u64, 4)
    );
    let paths: Vec<_> = listing
        .entries()
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(paths, ["a.txt", "b.txt", "copy", "old/a.txt", "old/empty"]);
    for (path, file) in listing.files() {
        let local = dir.path().join("talks").join(path.as_str());
        let served = read_all(&shares, &file.content);
        assert_eq!(served, std::fs::read(&local).unwrap());
        let found = local.metadata().unwrap();
        assert_eq!(file.is_executable, path.as_str() == "b.txt");
        assert_eq!(file.modified.seconds, found.mtime());
        assert_eq!(i64::from(file.modified.nanos), found.mtime_nsec());
    }
    assert_eq!(shares.remove(|other| *other == shared).len(), 1);
    assert!(shares.open(&shared.file.content, Reader::Own).is_none());
    for (_, file) in listing.files() {
        assert!(shares.open(&file.content, Reader::Own).is_none());
    }
    assert!(shares.offers().places.is_empty());
}

#[tokio::test]
async fn a_changed_file_of_a_folder_is_not_served_and_the_folder_is_looked_at_again() {
    let dir = folder();
    let path = dir.path().join("talks");
    let background = Background::default();
    let (shares, mut withdrawn) = Shares::new(background.clone());
    let shared = share(&shares, &path).await;
    let listing = read_all(&shares, &shared.file.content);
    let listing = Listing::decode(&listing).unwrap();
    let content_of = |wanted: &str| {
        let mut files = listing.files();
        let found = files.find(|(path, _)| path.as_str() == wanted);
        found.unwrap().1.content
    };
    std::fs::write(path.join("b.txt"), "another").unwrap();
    std::fs::remove_file(path.join("a.txt")).unwrap();
    assert!(shares.open(&content_of("b.txt"), Reader::Own).is_none());
    assert!(
        shares.open(&content_of("a.txt"), Reader::Own).is_some(),
        "there is a copy of it"
    );
    assert!(withdrawn.try_recv().is_err(), "the folder is still there");
    assert_eq!(background.changes.next().await, path);
    let read = shares.read_bytes();
    let entry = shares.prepare(Subject::Before(shared.clone()));
    let taken = shares.replace(entry.await.unwrap()).unwrap();
    assert_eq!(taken.gone, std::slice::from_ref(&shared));
    assert!(shares.read_bytes() > read);
    let now = shares.list();
    assert_eq!(now.len(), 1);
    assert_ne!(now[0].file.content, shared.file.content);
    assert!(shares.open(&shared.file.content, Reader::Own).is_none());
}

#[tokio::test]
async fn what_takes_the_place_of_a_share_is_not_shared_until_somebody_names_it() {
    use std::fs;
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["secret", "other"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("file"), name).unwrap();
    }
    fs::create_dir_all(at("above/folder")).unwrap();
    fs::write(at("above/file"), "shared").unwrap();
    symlink(at("other/file"), at("link")).unwrap();
    let away = |name: &str| fs::rename(at(name), at("away")).unwrap();
    let replaced: [(&str, &dyn Fn(), &str); 6] = [
        (
            "above/file",
            &|| symlink(at("secret/file"), at("above/file")).unwrap(),
            "elsewhere",
        ),
        (
            "above/folder",
            &|| symlink(at("secret"), at("above/folder")).unwrap(),
            "elsewhere",
        ),
        (
            "above/file",
            &|| fs::create_dir(at("above/file")).unwrap(),
            "is a folder now",
        ),
        (
            "above/folder",
            &|| fs::write(at("above/folder"), "").unwrap(),
            "is no folder now",
        ),
        (
            "link",
            &|| symlink(at("secret/file"), at("link")).unwrap(),
            "elsewhere",
        ),
        (
            "above",
            &|| symlink(at("secret"), at("above")).unwrap(),
            "elsewhere",
        ),
    ];
    for (name, replace, reason) in replaced {
        let (shares, _withdrawn) = Shares::new(Background::default());
        let path = match name {
            "above" => at("above/file"),
            _ => at(name),
        };
        let shared = share(&shares, &path).await;
        away(name);
        replace();
        let subject = Subject::Before(shared);
        let told = Shares::unhashed(&subject).unwrap_err();
        let error = shares.prepare(subject).await.unwrap_err().to_string();
        assert!(
            error.contains(reason) && told.contains(reason),
            "{name}: {error}"
        );
        share(&shares, &path).await;
        let _ = fs::remove_file(at(name)).or_else(|_| fs::remove_dir(at(name)));
        fs::rename(at("away"), at(name)).unwrap();
    }
}

/// What was shared before is known before it is read, and can be taken back.
#[tokio::test]
async fn what_is_still_to_be_read_is_listed_without_an_id() {
    let dir = folder();
    let state = tempfile::tempdir().unwrap();
    let background = || {
        let (events, _) = mpsc::channel(1);
        let memory = crate::peer::database::Memory::new(Some(state.path().to_owned()), events);
        Background {
            kept: Kept::new(memory),
            ..Background::default()
        }
    };
    let first = background();
    let (shares, _withdrawn) = Shares::new(first.clone());
    for name in ["talks", "talks/a.txt"] {
        share(&shares, &dir.path().join(name)).await;
    }
    first.kept.flush();
    drop((first, shares));

    let second = background();
    let (shares, _withdrawn) = Shares::new(second.clone());
    second.kept.load();
    let wanted = second.kept.unread();
    let shown = |shares: &Shares| {
        let shown = shares.list_all().into_iter();
        let shown = shown.map(|shared| (shared.file.name.to_string(), shared.file.kind));
        shown.collect::<Vec<_>>()
    };
    let (file, talks) = ("a.txt".to_owned(), "talks".to_owned());
    assert!(shares.list().is_empty());
    assert_eq!(
        shown(&shares),
        [
            (file.clone(), PublicationKind::HashingFile),
            (talks, PublicationKind::HashingFolder)
        ]
    );
    for shared in wanted.clone() {
        let entry = shares
            .prepare(Subject::Before(shared.clone()))
            .await
            .unwrap();
        shares.remove(|other| other.file.name.as_str() == "talks");
        if shares.replace(entry).is_some() {
            second.kept.set_read(&shared);
        }
    }
    assert_eq!(wanted.len(), 2);
    assert_eq!(shown(&shares), [(file, PublicationKind::File)]);
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_not_offered_when_it_is_ready() {
    let dir = folder();
    let path = dir.path().join("talks");
    let (shares, _withdrawn) = Shares::new(Background::default());
    let shared = share(&shares, &path).await;
    let entry = shares.prepare(Subject::Before(shared)).await.unwrap();
    shares.remove(|_| true);
    assert_eq!(shares.replace(entry), None);
    assert!(shares.list().is_empty());
}

fn ana() -> Readers {
    Readers::of([(ANA, "ana".parse().unwrap())]).unwrap()
}

const ANA: crate::wire::id::PeerId = crate::wire::id::PeerId([1; 32]);
const STRANGER: Reader = Reader::Peer(crate::wire::id::PeerId([9; 32]));

/// A large file takes long to be read; people decide meanwhile.
#[tokio::test]
async fn what_was_decided_while_a_file_was_read_again_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("x"), dir.path().join("copy"));
    std::fs::write(&path, "plain").unwrap();
    std::fs::write(&copy, "sealed").unwrap();
    let (shares, _withdrawn) = Shares::new(Background::default());
    let public = share(&shares, &path).await;
    let prepare = || shares.prepare(Subject::Before(public.clone()));
    let (first, second) = (prepare().await.unwrap(), prepare().await.unwrap());

    let named = Subject::Named(path.clone(), None, ana());
    let restricted = shares.take(named).await.unwrap().shared;
    assert_eq!(shares.replace(first).unwrap().shared, restricted);
    assert_eq!(shares.list(), std::slice::from_ref(&restricted));
    assert_eq!(shares.audience_of(&public.file), ana().audience());
    assert!(shares.open(&public.file.content, STRANGER).is_none());
    let reader = Reader::Peer(ANA);
    assert!(shares.open(&public.file.content, reader).is_some());

    let locked = Subject::Locked {
        path: path.clone(),
        name: None,
        copy,
        readers: Readers::Everybody,
    };
    let locked = shares.take(locked).await.unwrap();
    assert_eq!(locked.gone, [restricted]);
    assert_eq!(shares.replace(second), None);
    assert_eq!(shares.list(), [locked.shared]);
    assert!(shares.open(&public.file.content, Reader::Own).is_none());
}

#[tokio::test]
async fn one_file_at_two_paths_has_one_audience_live_and_after_a_change_and_a_start() {
    for (is_public_first, [public, few]) in
        [(true, ["a", "b"]), (false, ["a", "b"]), (true, ["b", "a"])]
    {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let background = || {
            let (events, _) = mpsc::channel(1);
            let memory = crate::peer::database::Memory::new(Some(state.path().to_owned()), events);
            Background {
                kept: Kept::new(memory),
                ..Background::default()
            }
        };
        let path = |place: &str| dir.path().join(place).join("x");
        for place in ["a", "b"] {
            std::fs::create_dir(dir.path().join(place)).unwrap();
            std::fs::write(path(place), "same").unwrap();
        }
        let first = background();
        let (shares, _withdrawn) = Shares::new(first.clone());
        let take = |place: &str, readers| shares.take(Subject::Named(path(place), None, readers));
        let mut all = [(public, Readers::Everybody), (few, ana())];
        if !is_public_first {
            all.reverse();
        }
        for (place, readers) in all {
            take(place, readers).await.unwrap();
        }
        let is_for_ana = |shares: &Shares| {
            let shared = shares.list().pop().unwrap();
            assert_eq!(shared.readers, ana());
            assert_eq!(shares.audience_of(&shared.file), ana().audience());
            assert!(shares.open(&shared.file.content, STRANGER).is_none());
            shared
        };
        is_for_ana(&shares);
        for place in ["a", "b", "a"] {
            let old = first.kept.at(&path(place)).pop().unwrap();
            let entry = shares.prepare(Subject::Before(old)).await.unwrap();
            shares.replace(entry).unwrap();
            is_for_ana(&shares);
        }
        first.kept.flush();
        drop((shares, first));

        let second = background();
        let (shares, _withdrawn) = Shares::new(second.clone());
        second.kept.load();
        for old in second.kept.unread() {
            let entry = shares.prepare(Subject::Before(old)).await.unwrap();
            shares.replace(entry).unwrap();
            is_for_ana(&shares);
        }
        // Each place has its own readers, as soon as the same does not lie there any more.
        std::fs::write(path(few), "another").unwrap();
        let old = second.kept.at(&path(few)).pop().unwrap();
        let entry = shares.prepare(Subject::Before(old.clone())).await.unwrap();
        let taken = shares.replace(entry).unwrap();
        assert_eq!(taken.shared.readers, ana());
        assert_eq!(second.kept.at(&path(public))[0].readers, Readers::Everybody);
        assert!(taken.gone.iter().any(|gone| gone.file == old.file));
    }
}

#[tokio::test]
async fn what_was_had_for_oneself_does_not_keep_from_sharing_the_same_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (own, shown) = (dir.path().join("x"), dir.path().join("shown"));
    for path in [&own, &shown] {
        std::fs::write(path, "same").unwrap();
    }
    let (shares, _withdrawn) = Shares::new(Background::default());
    let name: FileName = "x".parse().unwrap();
    let had = Subject::Downloaded(own, name.clone(), Readers::Nobody);
    let had = shares.take(had).await.unwrap().shared;
    assert_eq!(shares.audience_of(&had.file), None);
    let named = shares.add(&shown, Some(name)).await.unwrap();
    assert_eq!(named.readers, Readers::Everybody);
    assert!(shares.open(&named.file.content, STRANGER).is_some());
}

#[tokio::test]
async fn a_locked_copy_of_what_lies_with_keys_is_not_shared() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, copy) = (dir.path().join("identity.key"), copies.path().join("copy"));
    for path in [&path, &copy] {
        std::fs::write(path, "x").unwrap();
    }
    let (shares, _withdrawn) = Shares::new(Background::default());
    let locked = Subject::Locked {
        path,
        name: None,
        copy,
        readers: Readers::Everybody,
    };
    let refused = shares.take(locked).await.unwrap_err().to_string();
    assert!(refused.contains("keys"), "{refused}");
}

#[tokio::test]
async fn a_thousand_equal_files_are_remembered_a_few_times() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..1000 {
        std::fs::write(dir.path().join(number.to_string()), "same").unwrap();
    }
    let (shares, _withdrawn) = Shares::new(Background::default());
    let shared = share(&shares, dir.path()).await;
    assert_eq!(shared.contents.files, 1000);
    let content = ContentId(*blake3::hash(b"same").as_bytes());
    assert_eq!(shares.offers().places[&content].len(), MAX_COPIES);
    shares.remove(|_| true);
    assert!(shares.offers().places.is_empty());
}
