//! The client against a mock of an engine: raw answers over a real Unix socket, so that they can be as wrong as they like. Real engines are in
//! `tests/tests/scenarios/engines.rs`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::AtomicUsize;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::*;

const VERSION: &str =
    r#"{"Components":[{"Name":"Engine","Version":"1"}],"Version":"1","ApiVersion":"1.41"}"#;

/// An id of one digit.
fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// What the mock does with a request for a path.
enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes and then nothing.
    Hang(Vec<u8>),
    /// Sends these bytes, and the last of them again and again.
    Endless(Vec<u8>, Vec<u8>),
}

/// A mock of an engine.
struct Mock {
    dir: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mock {
    fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let dir = TempDir::with_prefix("killwatch-mock-").unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (reply, told) = (Arc::new(reply), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (reply, told) = (Arc::clone(&reply), Arc::clone(&told));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    let head = String::from_utf8(head).unwrap();
                    assert!(head.contains("host: docker\r\n"), "{head}");
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    told.lock().unwrap().push(path.clone());
                    match reply(&path) {
                        Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
                        Reply::Hang(bytes) => {
                            stream.write_all(&bytes).await?;
                            // Until the client gives up.
                            stream.read_u8().await?;
                        }
                        Reply::Endless(bytes, last) => {
                            stream.write_all(&bytes).await?;
                            loop {
                                stream.write_all(&last).await?;
                            }
                        }
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { dir, asked }
    }

    async fn client(&self) -> Result<EngineClient<Docker>, Error> {
        let wanted = Wanted { labels: BTreeSet::from(["app".to_owned()]), ..Wanted::default() };
        EngineClient::connect(&self.dir.path().join("sock"), &Arc::new(wanted)).await
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(what)).count()
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn ok(body: &str) -> Reply {
    Reply::Bytes(answer("200 OK", body))
}

/// A mock that answers this to all but `/version`.
fn but_for_the_version(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Mock {
    Mock::start(move |path| if path == "/version" { ok(VERSION) } else { reply(path) })
}

fn inspected(id: &str, restarts: u32) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/n","RestartCount":{restarts},"Config":{{"Image":"i:1","Labels":{{"app":"a","b":"c"}}}}}}"#
    )
}

fn listed(ids: &[String]) -> String {
    let items: Vec<String> = ids
        .iter()
        .map(|id| format!(r#"{{"Id":"{id}","Names":["/n"],"Image":"sha256:5a","Labels":{{"app":"a","b":"c"}}}}"#))
        .collect();
    format!("[{}]", items.join(","))
}

#[tokio::test]
async fn asks_for_one_and_for_all() {
    let mock = but_for_the_version(|path| match path {
        path if path.contains(&id('b')) => {
            Reply::Bytes(answer("404 Not Found", r#"{"message":"No such container"}"#))
        }
        Docker::LIST => ok(&listed(&[id('a')])),
        _ => ok(&inspected(&id('a'), 3)),
    });
    let client = mock.client().await.unwrap();
    assert_eq!(client.version().await.unwrap(), "Docker 1, API 1.41");
    let info = client.find(&id('a')).await.unwrap().unwrap();
    assert_eq!((info.source, info.runtime.as_deref()), ("docker", Some("docker")));
    assert_eq!((info.attempt, info.image.as_deref()), (Some(3), Some("i:1")));
    assert_eq!(info.labels, [("app".to_owned(), "a".to_owned())].into());
    assert_eq!(client.list().await.unwrap(), [info], "a list says the same");
    assert_eq!(client.find(&id('b')).await.unwrap(), None);
}

#[tokio::test]
async fn only_whole_ids_are_asked_for() {
    let mock = but_for_the_version(|_| ok(&inspected(&id('a'), 0)));
    let client = mock.client().await.unwrap();
    for id in ["", "abc", "../../version", &id('a')[1..], &id('A'), &format!("{}/", &id('a')[1..])]
    {
        assert_eq!(client.find(id).await.unwrap(), None, "{id}");
    }
    assert_eq!(mock.asked("/containers/"), 0);
    assert!(matches!(client.find(&id('b')).await, Err(Error::Malformed(_))), "of another one");
}

#[tokio::test]
async fn another_server_is_no_engine() {
    let mock = Mock::start(|_| Reply::Bytes(answer("404 Not Found", "")));
    assert!(matches!(mock.client().await, Err(Error::Unsupported)));
    let mock = Mock::start(|_| ok("<html>"));
    assert!(matches!(mock.client().await, Err(Error::Malformed(_))));
    let wanted = Arc::default();
    let nobody = EngineClient::<Docker>::connect(Path::new("/nonexistent/sock"), &wanted);
    let error = nobody.await.unwrap_err().to_string();
    assert!(error.contains("cannot connect") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn podman_behind_dockers_socket_is_podman() {
    let mock = Mock::start(|path| match path {
        "/version" => ok(r#"{"Components":[{"Name":"Podman Engine"}],"Version":"4.3.1"}"#),
        _ => ok(&inspected(&id('a'), 0)),
    });
    let info = mock.client().await.unwrap().find(&id('a')).await.unwrap().unwrap();
    assert_eq!((info.source, info.runtime.as_deref()), ("docker", Some("podman")));
}

#[tokio::test]
async fn what_it_says_no_with_is_told() {
    let mock = but_for_the_version(|path| match path {
        Docker::LIST => {
            Reply::Bytes(answer("500 Internal Server Error", r#"{"message":"the disk is full"}"#))
        }
        _ => Reply::Endless(
            answer("503 x", "").into_iter().chain(*b"junk").collect(),
            vec![b'x'; 4096],
        ),
    });
    let client = mock.client().await.unwrap();
    let error = client.list().await.unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("the disk is full"), "{error}");
    let error = client.find(&id('a')).await.unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
}

#[tokio::test]
async fn garbage_is_refused() {
    let mut long_head = b"HTTP/1.1 200 OK\r\n".to_vec();
    long_head.extend(std::iter::repeat_n(b'x', 2 * MAX_HEAD));
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("a long head", long_head),
        ("no JSON", answer("200 OK", "garbage")),
        ("no UTF-8", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"Id\":\"\xff\"".to_vec()),
        ("another type", answer("200 OK", r#"{"Id":1,"Name":[],"Config":"x"}"#)),
        ("an end too early", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"Id\"".to_vec()),
        ("bad chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec()),
        (
            "a redirect",
            b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
    ];
    for (what, bytes) in garbage {
        let mock = but_for_the_version(move |_| Reply::Bytes(bytes.clone()));
        let client = mock.client().await.unwrap();
        for error in [client.find(&id('a')).await.err(), client.list().await.err()] {
            assert!(
                matches!(error, Some(Error::Malformed(_) | Error::Failed(_))),
                "{what}: {error:?}"
            );
        }
        let (told, mut news) = mpsc::channel(1);
        let _ = client.watch(told, || {}).await;
        assert!(news.recv().await.is_none(), "{what}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    let mock = but_for_the_version(|_| Reply::Endless(HEAD.to_vec(), vec![b' '; 1 << 16]));
    let client = mock.client().await.unwrap();
    let error = client.find(&id('a')).await.unwrap_err().to_string();
    assert!(error.contains(&format!("longer than {MAX_ONE} bytes")), "{error}");
    let error = client.list().await.unwrap_err().to_string();
    assert!(error.contains(&format!("longer than {MAX_LIST} bytes")), "{error}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_holds_nothing_up() {
    let silent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&silent);
    let mock = but_for_the_version(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Hang(Vec::new()),
        1 => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{".to_vec()),
        _ => ok(&inspected(&id('a'), 0)),
    });
    let client = mock.client().await.unwrap();
    for _ in 0..2 {
        let given_up = timeout(Duration::from_millis(50), client.find(&id('a'))).await;
        assert!(given_up.is_err(), "{given_up:?}");
    }
    assert!(client.find(&id('a')).await.unwrap().is_some());
}

#[tokio::test]
async fn one_container_that_hangs_does_not_hide_the_others() {
    let mock = but_for_the_version(|path| match path {
        Docker::LIST => ok(&listed(&[id('a'), id('b')])),
        path if path.contains(&id('a')) => Reply::Hang(Vec::new()),
        path if path.starts_with("/events") => Reply::Hang(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        _ => ok(&inspected(&id('b'), 1)),
    });
    let client = mock.client().await.unwrap();
    let (told, _news) = mpsc::channel(1);
    let begun = tokio::sync::Notify::new();
    let watch = client.watch(told, || begun.notify_one());
    let lists = async {
        begun.notified().await;
        let first = client.list().await.unwrap();
        let second = client.list().await.unwrap();
        [first, second]
    };
    tokio::pin!(watch);
    let [first, second] = tokio::select! {
        error = &mut watch => panic!("{error}"),
        lists = lists => lists,
    };
    let attempts = |infos: &[Info]| infos.iter().map(|info| info.attempt).collect::<Vec<_>>();
    assert_eq!(attempts(&first).len(), 2);
    assert_eq!(attempts(&second), [None, Some(1)]);
    assert_eq!(second[0].image.as_deref(), Some("sha256:5a"), "what the list says stays");
    assert_eq!(mock.asked(&id('a')), 1, "it is not asked for again until it changes");
}

#[tokio::test]
async fn changes_are_told_and_what_was_seen_before_is_not_kept() {
    let restarts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&restarts);
    let mut changes = String::new();
    let line = |id: &str| format!("{{\"Actor\":{{\"ID\":\"{id}\"}}}}\n");
    let long = "x".repeat(lines::MAX_LINE + 1);
    for text in [&line(&id('a')), "garbage\n", &format!("{long}\n"), &line("abc"), &line(&id('b'))]
    {
        write!(changes, "{:x}\r\n{text}\r\n", text.len()).unwrap();
    }
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mock = but_for_the_version(move |path| match path {
        CHANGES => Reply::Hang(format!("{head}{changes}").into_bytes()),
        _ => {
            let restarts = count.fetch_add(1, Ordering::Relaxed);
            ok(&inspected(&id('a'), u32::try_from(restarts).unwrap()))
        }
    });
    let client = mock.client().await.unwrap();
    let (told, mut news) = mpsc::channel(4);
    let mut begun = false;
    let watch = client.watch(told, || begun = true);
    let heard = async {
        let ids = [news.recv().await, news.recv().await];
        assert_eq!(ids, [Some(id('a')), Some(id('b'))]);
        assert_eq!(client.refused(), 3, "garbage, a line too long, and no id");
        assert_eq!(client.refused(), 0);
        for attempt in [0, 1] {
            client.find(&id('a')).await.unwrap();
            assert_eq!(client.seen().looks[&id('a')].attempt, Some(attempt));
        }
    };
    tokio::select! {
        error = watch => panic!("{error}"),
        () = heard => {}
    }
    assert!(begun);
}

#[tokio::test]
async fn changes_beyond_the_room_are_counted() {
    let line = format!("{{\"Actor\":{{\"ID\":\"{}\"}}}}\n", id('a'));
    let mock = but_for_the_version(move |_| {
        let body = line.repeat(5);
        ok(&body)
    });
    let client = mock.client().await.unwrap();
    let (told, mut news) = mpsc::channel(2);
    let error = client.watch(told, || {}).await.to_string();
    assert!(error.contains("no more"), "{error}");
    assert_eq!(client.refused(), 3);
    assert!(news.recv().await.is_some() && news.recv().await.is_some());
    assert!(news.recv().await.is_none());
}

#[test]
fn what_is_asked_is_what_is_meant() {
    let decoded = |path: &str| {
        let (_, query) = path.split_once("?filters=").unwrap();
        let mut text = query.to_owned();
        for (from, to) in [
            ("%7B", "{"),
            ("%7D", "}"),
            ("%22", "\""),
            ("%3A", ":"),
            ("%5B", "["),
            ("%5D", "]"),
            ("%2C", ","),
        ] {
            text = text.replace(from, to);
        }
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let states = ["created", "running", "paused", "restarting"];
    assert_eq!(decoded(Docker::LIST), serde_json::json!({ "status": states }));
    assert_eq!(decoded(Podman::LIST), serde_json::json!({ "status": states[..3] }));
    let changes =
        serde_json::json!({"type": ["container"], "event": ["create", "start", "rename"]});
    assert_eq!(decoded(CHANGES), changes);
    assert!(
        Docker::serves(None) && Docker::serves(Some("docker")) && !Docker::serves(Some("podman"))
    );
}
