//! The socket from both sides.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::disk::{create_private_dir, lock_dir};

struct Echo;

impl Host for Echo {
    async fn answer(&self, request: Request, replies: Replies) -> End {
        match request.command.as_str() {
            "count" => {
                for number in 0..100 {
                    replies.send(json!({ "n": number })).await;
                }
                End::OK
            }
            "wait" => {
                sleep(Duration::from_millis(300)).await;
                End::OK
            }
            "ponder" => {
                sleep(ANSWER_TIME + SIGN_OF_LIFE).await;
                End::OK
            }
            other => End::failed(5, format!("no {other}")),
        }
    }
}

fn home(dir: &Path) -> DirLock {
    create_private_dir(dir).unwrap();
    lock_dir(dir).unwrap()
}

fn start(dir: &Path, lock: &DirLock) -> CancellationToken {
    let shutdown = CancellationToken::new();
    let listener = Listener::bind(dir, lock).unwrap();
    tokio::spawn(listener.run(Arc::new(Echo), shutdown.clone()));
    shutdown
}

async fn say(dir: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.join(NAME)).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn a_question_gets_its_lines_and_its_end() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("state");
    let lock = home(&dir);
    let shutdown = start(&dir, &lock);
    let found = std::fs::symlink_metadata(dir.join(NAME)).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(found.uid(), rustix::process::geteuid().as_raw());
    let mut lines = Vec::new();
    let end = ask(&dir, &Request::new("count"), |line| lines.push(line)).await;
    assert_eq!(end.unwrap(), End::OK);
    assert_eq!(lines.len(), 100);
    assert_eq!(lines[99], json!({"n": 99}));
    let end = ask(&dir, &Request::new("dance"), |_| {}).await.unwrap();
    assert_eq!(end, End::failed(5, "no dance"));
    shutdown.cancel();
    while dir.join(NAME).exists() {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(matches!(
        ask(&dir, &Request::new("count"), |_| {}).await,
        Err(AskError::Nobody(_))
    ));
}

#[tokio::test]
async fn what_is_no_request_gets_an_end_or_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let lock = home(temporary.path());
    let _shutdown = start(temporary.path(), &lock);
    let no = say(temporary.path(), b"GET / HTTP/1.1\r\n").await;
    assert_eq!(no.lines().count(), 1, "{no}");
    assert!(no.contains("\"code\":2"), "{no}");
    let other = say(temporary.path(), b"{\"v\":2,\"command\":\"count\"}\n").await;
    assert!(other.contains("version"), "{other}");
    let (head, tail) = ("{\"v\":1,\"command\":\"", "\"}\n");
    let long = [head.as_bytes(), &vec![b'x'; 5 << 20], tail.as_bytes()].concat();
    assert_eq!(say(temporary.path(), &long).await, "");
    let end = ask(temporary.path(), &Request::new("count"), |_| {}).await;
    assert_eq!(end.unwrap(), End::OK, "it goes on");
}

#[tokio::test]
async fn many_ask_at_the_same_time() {
    let temporary = tempfile::tempdir().unwrap();
    let lock = home(temporary.path());
    let _shutdown = start(temporary.path(), &lock);
    let begin = std::time::Instant::now();
    let request = Request::new("wait");
    let (one, two, three) = tokio::join!(
        ask(temporary.path(), &request, |_| {}),
        ask(temporary.path(), &request, |_| {}),
        ask(temporary.path(), &request, |_| {}),
    );
    for end in [one, two, three] {
        assert_eq!(end.unwrap(), End::OK);
    }
    assert!(begin.elapsed() < Duration::from_millis(800), "not in turn");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_is_waited_for() {
    let temporary = tempfile::tempdir().unwrap();
    let lock = home(temporary.path());
    let _shutdown = start(temporary.path(), &lock);
    let mut lines = Vec::new();
    let request = Request::new("ponder");
    let end = ask(temporary.path(), &request, |line| {
        lines.push(line);
    });
    assert_eq!(end.await.unwrap(), End::OK);
    assert!(lines.is_empty(), "a sign of life is no line: {lines:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_has_gone_is_not_answered_any_more() {
    struct Drops(mpsc::Sender<()>);
    struct Told(mpsc::Sender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    impl Host for Drops {
        async fn answer(&self, _request: Request, replies: Replies) -> End {
            let _told = Told(self.0.clone());
            replies.send(json!({"type": "begun"})).await;
            std::future::pending().await
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let lock = home(temporary.path());
    let (dropped, mut drops) = mpsc::channel(1);
    let listener = Listener::bind(temporary.path(), &lock).unwrap();
    tokio::spawn(listener.run(Arc::new(Drops(dropped)), CancellationToken::new()));
    let mut stream = UnixStream::connect(temporary.path().join(NAME))
        .await
        .unwrap();
    stream
        .write_all(b"{\"v\":1,\"command\":\"x\"}\n")
        .await
        .unwrap();
    stream.read_u8().await.unwrap();
    drop(stream);
    let begin = Instant::now();
    drops.recv().await.unwrap();
    assert!(
        begin.elapsed() < SIGN_OF_LIFE,
        "at once, not by the next sign of life"
    );
}

#[tokio::test]
async fn a_socket_of_a_process_that_ended_is_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    drop(std::os::unix::net::UnixListener::bind(dir.join(NAME)).unwrap());
    let asked = ask(dir, &Request::new("count"), |_| {}).await;
    assert!(matches!(asked, Err(AskError::Nobody(_))), "{asked:?}");
    let lock = home(dir);
    let _shutdown = start(dir, &lock);
    let end = ask(dir, &Request::new("count"), |_| {}).await;
    assert_eq!(end.unwrap(), End::OK);
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_is_none() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary
        .path()
        .join("long".repeat(20))
        .join("er".repeat(50));
    let lock = home(&dir);
    let _shutdown = start(&dir, &lock);
    let end = ask(&dir, &Request::new("count"), |_| {}).await;
    assert_eq!(end.unwrap(), End::OK);
    let found = std::fs::symlink_metadata(dir.join(NAME)).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn whoever_says_nothing_is_given_up() {
    let temporary = tempfile::tempdir().unwrap();
    let lock = home(temporary.path());
    let _shutdown = start(temporary.path(), &lock);
    let begin = std::time::Instant::now();
    assert_eq!(say(temporary.path(), b"{\"v\":1").await, "");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn other_users_neither_ask_nor_answer() {
    assert!(may_ask(1000, 1000) && may_ask(0, 1000) && may_ask(0, 0));
    assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    assert!(is_meant(1000, 1000, 1000) && is_meant(1000, 0, 1000) && is_meant(0, 0, 1000));
    assert!(!is_meant(1001, 1000, 1000) && !is_meant(1001, 0, 1000));
    assert!(
        !is_meant(0, 1000, 1000),
        "root's socket in our directory is not ours"
    );
}
