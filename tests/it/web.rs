//! The HTTP interface, over real sockets: the calls of the old program, and what is refused.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Group, Process, assert_same, names_in, text, wait_until};

/// A peer with the interface: its process, `127.0.0.1:PORT`, and its token.
struct Site {
    group: Group,
    _tracker: Process,
    peer: Process,
    address: String,
    tracker: String,
    token: String,
}

/// What came back.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", text(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl Site {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        let group = Group::new();
        let (tracker_process, tracker) = group.tracker();
        group.file("a.txt", 1_000_000, 1);
        group.file("two words.bin", 0, 1);
        group.file("folder/inside", 10, 1);
        let args = [
            &[
                "--web=127.0.0.1:0",
                "--share",
                "a.txt",
                "two words.bin",
                "folder",
            ],
            more,
        ];
        let mut peer = group.peer("ana", &tracker, &args.concat());
        let line = peer.wait_for("Web interface at http://");
        for _ in 0..3 {
            peer.wait_for("Sharing");
        }
        let address = line.split("http://").nth(1).unwrap();
        let address = address.split(';').next().unwrap().to_owned();
        let token = fs::read_to_string(group.path("ana.state/peer/web.token")).unwrap();
        Self {
            group,
            _tracker: tracker_process,
            peer,
            address,
            tracker,
            token,
        }
    }

    /// Sends bytes as they are, and reads until the other side closes.
    fn raw(&self, request: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // Who is refused at its head may not be read to its end.
        let _ = stream.write_all(request);
        answer(&mut stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// A request with the right host and token, and these lines.
    fn ask(&self, first: &str, lines: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{first} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{lines}\r\n",
            self.address, self.token
        );
        self.raw(&[head.as_bytes(), body].concat()).unwrap()
    }

    fn get(&self, path: &str, lines: &str) -> Answer {
        self.ask(&format!("GET {path}"), lines, b"")
    }

    /// A form with one file.
    fn upload(&self, name: &str, bytes: &[u8]) -> Answer {
        let (lines, body) = form(name, bytes);
        self.ask("POST /upload", &lines, &body)
    }

    fn p2pfs(&self, args: &[&str]) -> Output {
        self.group.command("ana.state").args(args).output().unwrap()
    }
}

fn form(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
    let head = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--xyz\r\n\
         Content-Disposition: form-data; name=\"whatever\"; filename=\"{name}\"\r\n\r\n"
    );
    let body = [head.as_bytes(), bytes, b"\r\n--xyz--\r\n"].concat();
    let len = body.len();
    let lines =
        format!("Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {len}\r\n");
    (lines, body)
}

/// Until the other side closes; `None` when it says nothing.
fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = text(&bytes[..end]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = bytes.split_off(end + 4);
    Some(Answer { status, head, body })
}

#[test]
fn the_calls_of_the_old_program_are_answered_as_it_documented_them() {
    let site = Site::new();
    let listed = site.get("/list_files", "");
    assert_eq!(listed.status, 200);
    assert_eq!(text(&listed.body), r#"{"files":["a.txt","two words.bin"]}"#);

    let plain = fs::read(site.group.path("a.txt")).unwrap();
    let whole = site.get("/download/a.txt", "");
    assert_eq!((whole.status, whole.body == plain), (200, true));
    assert!(
        whole
            .header("content-disposition")
            .unwrap()
            .starts_with("attachment; ")
    );
    assert_eq!(
        whole.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(whole.header("content-length"), Some("1000000"));
    assert_eq!(site.get("/download/two%20words.bin", "").body, b"");
    let missing = site.get("/download/b.txt", "");
    assert_eq!(
        (missing.status, &missing.json()["class"]),
        (404, &"file".into())
    );
    assert_eq!(site.get("/download/folder", "").status, 404);

    // Begun, and gone on with.
    let etag = whole.header("etag").unwrap();
    let part = site.get(
        "/download/a.txt",
        &format!("Range: bytes=999990-\r\nIf-Range: {etag}\r\n"),
    );
    assert_eq!((part.status, &part.body[..]), (206, &plain[999_990..]));
    assert_eq!(
        part.header("content-range"),
        Some("bytes 999990-999999/1000000")
    );
    let other = site.get(
        "/download/a.txt",
        "Range: bytes=5-\r\nIf-Range: \"old\"\r\n",
    );
    assert_eq!((other.status, other.body.len()), (200, plain.len()));
    let beyond = site.get("/download/a.txt", "Range: bytes=1000000-\r\n");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */1000000"))
    );
    assert_eq!(
        site.get("/download/a.txt", &format!("If-None-Match: {etag}\r\n"))
            .status,
        304
    );
    let head = site.ask("HEAD /download/a.txt", "", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));

    let uploaded = site.upload("new file.txt", b"some bytes");
    assert_eq!(uploaded.status, 200, "{}", text(&uploaded.body));
    let told = uploaded.json();
    assert_eq!(told["message"], "File uploaded successfully");
    assert_eq!(told["filename"], "new file.txt");
    assert_eq!(
        fs::read(site.group.path("ana/new file.txt")).unwrap(),
        b"some bytes"
    );
    assert_eq!(site.get("/download/new%20file.txt", "").body, b"some bytes");
    // It is shared with the group, as well.
    let got = site.group.once(&site.tracker, &["get", "new file.txt"]);
    assert!(got.status.success(), "{got:?}");

    let health = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", site.address);
    assert_eq!(site.raw(health.as_bytes()).unwrap().body, b"ok\n");
    assert_eq!(site.get("/nothing", "").status, 404);
    assert_eq!(site.ask("DELETE /list_files", "", b"").status, 405);
}

#[test]
fn row_81_who_has_no_token_is_not_let_in_and_guesses_are_slowed() {
    let site = Site::new();
    let with = |lines: &str| {
        let head = format!(
            "GET /list_files HTTP/1.1\r\nHost: {}\r\n{lines}\r\n",
            site.address
        );
        site.raw(head.as_bytes()).unwrap()
    };
    let token = &site.token;
    for right in [
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\n"),
        format!("authorization: bearer {token}\r\n"),
    ] {
        assert_eq!(with(&right).status, 200, "{right}");
    }
    let wrong = "x".repeat(token.len());
    for (number, lines) in [
        String::new(),
        "Authorization: \r\n".to_owned(),
        format!("Authorization: {wrong}\r\n"),
        format!("Authorization: {token}x\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {wrong}\r\n"),
        format!("Authorization: {token}\r\nAuthorization: {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
    ]
    .iter()
    .enumerate()
    {
        let refused = with(lines);
        let status = if number < 5 { 401 } else { 429 };
        assert_eq!(refused.status, status, "{lines}");
        assert_eq!(refused.json()["class"], "auth");
    }
    // In a URL it is none, and whoever has it is not kept out by those who guess.
    let in_url = format!(
        "GET /list_files?token={token} HTTP/1.1\r\nHost: {}\r\n\r\n",
        site.address
    );
    assert_eq!(site.raw(in_url.as_bytes()).unwrap().status, 429);
    assert_eq!(site.get("/list_files", "").status, 200);
    let path = site.group.path("ana.state/peer/web.token");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let shown = text(&site.p2pfs(&["web"]).stdout);
    let url = format!("http://{}/#token={token}", site.address);
    assert_eq!(shown.trim(), url);
    let shown = site.p2pfs(&["web", "--reset-token", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        with(&format!("Authorization: {token}\r\n")).status,
        429,
        "the old one"
    );
    let new = shown["url"]
        .as_str()
        .unwrap()
        .split("token=")
        .nth(1)
        .unwrap();
    assert_ne!(new, token);
    assert_eq!(with(&format!("Authorization: {new}\r\n")).status, 200);
    assert!(!site.peer.output().contains(new) && !site.peer.output().contains(token.as_str()));
}

#[test]
fn row_82_requests_for_or_from_somebody_else_are_refused_in_spite_of_the_token() {
    let site = Site::new();
    let (own, token) = (&site.address, &site.token);
    let port = own.split(':').nth(1).unwrap();
    let with = |first: &str, lines: &str| {
        let head = format!("{first} HTTP/1.1\r\nAuthorization: {token}\r\n{lines}\r\n");
        site.raw(head.as_bytes()).unwrap()
    };
    for host in [
        own.clone(),
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
    ] {
        let own_page =
            format!("Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
        assert_eq!(with("GET /list_files", &own_page).status, 200, "{host}");
    }
    let hosts = [
        String::new(),
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\n"),
        format!("Host: localhost.evil.example:{port}\r\n"),
        format!("Host: {own}.evil.example\r\n"),
        "Host: 127.0.0.1\r\n".to_owned(),
        format!("Host: {own}\r\nHost: evil.example\r\n"),
    ];
    for lines in &hosts {
        // Without any host the server refuses it before we see it.
        let refused = with("GET /list_files", lines).status;
        assert!(
            refused == 421 || (lines.is_empty() && refused == 400),
            "{lines}: {refused}"
        );
    }
    let absolute = format!("GET http://{own}/list_files");
    assert_eq!(with(&absolute, &format!("Host: {own}\r\n")).status, 421);
    for lines in [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: https://127.0.0.1",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
    ] {
        let refused = with("GET /list_files", &format!("Host: {own}\r\n{lines}\r\n"));
        assert_eq!(refused.status, 403, "{lines}");
        assert!(refused.header("access-control-allow-origin").is_none());
        assert_eq!(
            refused.header("cross-origin-resource-policy"),
            Some("same-origin")
        );
        let policy = refused.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
    }
    let preflight = format!("Host: {own}\r\nOrigin: http://evil.example\r\n");
    assert_eq!(with("OPTIONS /upload", &preflight).status, 403);
}

#[test]
fn row_83_no_path_leads_out_of_what_is_shared() {
    let site = Site::new();
    for path in [
        "/download/../a.txt",
        "/download/..%2fa.txt",
        "/download/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/download/..%5ca.txt",
        "/download/%2fetc%2fpasswd",
        "/download/a.txt%00",
        "/download/%00",
        "/download/..",
        "/download/.",
        "/download/",
        "/download/%ff%fe",
        "/download//etc/passwd",
        "//etc/passwd",
    ] {
        let refused = site.get(path, "");
        assert!(
            (400..500).contains(&refused.status),
            "{path}: {}",
            refused.status
        );
        assert!(refused.json()["error"].is_string());
    }
}

#[test]
fn row_84_an_upload_stays_inside_and_replaces_nothing_and_leaves_no_remains() {
    let site = Site::new();
    let inside = site.group.path("ana");
    let before = names_in(&inside);
    for (name, kept) in [
        ("../../x", ".._.._x"),
        ("/etc/x", "_etc_x"),
        ("..\\\\y", ".._y"),
        ("CON", "CON_"),
        (".hidden", "_hidden"),
    ] {
        let uploaded = site.upload(name, b"1");
        assert_eq!(uploaded.status, 200, "{name}: {}", text(&uploaded.body));
        let filename = uploaded.json()["filename"].as_str().unwrap().to_owned();
        assert!(
            inside.join(&filename).is_file() && !filename.contains('/'),
            "{name} {kept} {filename}"
        );
    }
    assert!(!site.group.path("x").exists() && !std::path::Path::new("/etc/x").exists());
    assert_eq!(names_in(&inside).len(), before.len() + 5);

    fs::write(inside.join("taken"), "old").unwrap();
    let refused = site.upload("taken", b"new");
    assert_eq!(
        (refused.status, &refused.json()["class"]),
        (409, &"file".into())
    );
    assert_eq!(fs::read(inside.join("taken")).unwrap(), b"old");
    assert_eq!(site.upload("empty", b"").status, 200);

    let before = names_in(&inside);
    let no_file = b"--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--xyz--\r\n";
    let lines = |len: usize| {
        format!("Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {len}\r\n")
    };
    let many = [&no_file[..no_file.len() - 9].repeat(1000), &no_file[..]].concat();
    let endless = [&b"--xyz\r\nX: "[..], &vec![b'x'; 3 << 20]].concat();
    for body in [&no_file[..], &many, &endless, b"", b"garbage"] {
        let refused = site.ask("POST /upload", &lines(body.len()), body);
        assert_eq!(refused.status, 400, "{}", text(&refused.body));
    }
    let json = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    assert_eq!(site.ask("POST /upload", json, b"{}").status, 400);
    let (lines, body) = form("cut", &vec![7; 1 << 20]);
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{lines}\r\n",
        site.address, site.token
    );
    let mut stream = site.connect();
    stream
        .write_all(&[head.as_bytes(), &body[..body.len() / 2]].concat())
        .unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);
    let huge =
        "Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: 1000000000000000\r\n";
    let refused = site.ask("POST /upload", huge, b"");
    assert_eq!(
        (refused.status, &refused.json()["class"]),
        (507, &"file".into())
    );
    assert_eq!(site.get("/list_files", "").status, 200);
    wait_until("nothing is left", || names_in(&inside) == before);
}

#[test]
fn row_86_who_is_slow_or_idle_is_closed_and_others_are_served() {
    let site = Site::new();
    let started = Instant::now();
    let mut idle: Vec<_> = (0..200).map(|_| site.connect()).collect();
    let mut half = site.connect();
    half.write_all(b"GET /list_files HTTP/1.1\r\nHost: ")
        .unwrap();
    let (lines, body) = form("slow", b"some");
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{lines}\r\n",
        site.address, site.token
    );
    let mut slow = site.connect();
    slow.write_all(&[head.as_bytes(), &body[..10]].concat())
        .unwrap();
    assert_eq!(site.get("/list_files", "").status, 200);
    for stream in &mut idle {
        assert!(answer(stream).is_none_or(|answer| answer.status == 408));
    }
    assert!(answer(&mut half).is_none_or(|answer| answer.status == 408));
    assert_eq!(answer(&mut slow).unwrap().status, 400);
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "{:?}",
        started.elapsed()
    );
    assert!(!names_in(&site.group.path("ana")).contains(&"slow".to_owned()));
}

#[test]
fn row_87_requests_that_could_be_read_in_two_ways_are_refused() {
    let site = Site::new();
    let (own, token) = (&site.address, &site.token);
    let head = format!("POST /upload HTTP/1.1\r\nHost: {own}\r\nAuthorization: {token}\r\n");
    let many: String = (0..200)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned(),
        "Content-Length: 5, 6\r\n\r\nhello".to_owned(),
        "Content-Length: -1\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked, nonsense\r\n\r\n0\r\n\r\n".to_owned(),
        format!("X: {}\r\n\r\n", "x".repeat(1 << 20)),
        format!("{many}\r\n"),
        "Bad Header: 1\r\n\r\n".to_owned(),
    ] {
        let refused = site.raw(format!("{head}{lines}").as_bytes());
        // A head that is too long may be cut off while it is still being sent.
        let status = refused.map_or(400, |answer| answer.status);
        assert!(
            (400..500).contains(&status),
            "{}: {status}",
            &lines[..lines.len().min(60)]
        );
    }
    // What follows a request is no second one.
    let first = format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\n\r\n");
    let both = first.repeat(2);
    let answered = site.raw(both.as_bytes()).unwrap();
    assert_eq!(answered.body, b"ok\n");
    let both_lengths = format!(
        "{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /list_files HTTP/1.1\r\n\r\n"
    );
    let refused = site.raw(both_lengths.as_bytes()).unwrap();
    assert_eq!(refused.status, 400);
    assert!(!text(&refused.body).contains("files\":["));
}

#[test]
fn row_88_another_address_than_loopback_is_refused_with_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    for (flag, line) in [
        ("--web=0.0.0.0:7070", "there is no TLS here"),
        ("--web=hub", "is no address for the web"),
    ] {
        let out = group.path("out");
        fs::create_dir_all(&out).unwrap();
        let args = [
            "peer",
            "--tracker",
            &address,
            "--name",
            "ana",
            flag,
            "--no-prompt",
        ];
        let output = group.command("ana.state").args(args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(line) && said.lines().count() == 1, "{said}");
    }
    let output = group.command("ana.state").arg("web").output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn a_large_file_goes_in_and_out_in_little_memory() {
    let site = Site::new();
    let len = 300 << 20;
    let large = site.group.file("large.bin", len, 3);
    site.peer.reset_peak();
    let before = site.peer.peak_kib();
    let bytes = fs::read(&large).unwrap();
    let uploaded = site.upload("large.bin", &bytes);
    assert_eq!(uploaded.status, 200, "{}", text(&uploaded.body));
    assert_same(&large, &site.group.path("ana/large.bin"), len);
    let back = site.get("/download/large.bin", "");
    assert!(back.body == bytes);
    let grown = site.peer.peak_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
}
