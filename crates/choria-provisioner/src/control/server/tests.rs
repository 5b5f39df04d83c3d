use std::os::unix::net::UnixListener as StdListener;

use choria_testkit::wait_until_async;

use super::*;
use crate::control::client::{self, AskError};
use crate::control::types::Status;

const DEADLINE: Duration = Duration::from_secs(20);

fn around(directory: &Path) -> Surroundings {
    Surroundings { run: directory.to_owned(), user_run: None }
}

/// Answers with a status whose process number is the number of questions.
fn start(listener: Listener) -> CancellationToken {
    let stop = CancellationToken::new();
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let answer = move |request| {
        let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        async move {
            match request {
                Request::Explain { node } => Answer::Error(Fault { code: "node".into(), message: node }),
                _ => {
                    let mut status = Status::default();
                    status.process.pid = number;
                    Answer::Status(Box::new(status))
                }
            }
        }
    };
    tokio::spawn(serve(listener, answer, stop.clone()));
    stop
}

async fn ask(path: &Path, request: Request) -> Result<Answer, AskError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || client::ask(&path, request)).await.unwrap()
}

async fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The other side may have said no before it read everything.
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

fn at(path: &Path) -> ControlSocket {
    ControlSocket::At(path.to_owned())
}

#[tokio::test]
async fn one_line_asks_and_one_line_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let listener = bind(&at(&path), Path::new("p.yaml"), &around(directory.path())).unwrap().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let stop = start(listener);
    assert!(matches!(ask(&path, Request::Status).await, Ok(Answer::Status(_))));
    let refused = ask(&path, Request::Explain { node: "n\"1".into() }).await.unwrap_err();
    assert!(matches!(refused, AskError::Refused { fault, .. } if fault.message == "n\"1"));
    for (line, code) in [
        ("hello\n", "request"),
        ("\n", "request"),
        ("", "request"),
        ("{\"version\":2,\"ask\":\"status\"}\n", "version"),
        ("{\"version\":1,\"ask\":\"shutdown\"}\n", "request"),
        ("{\"version\":1,\"ask\":\"explain\"}\n", "request"),
    ] {
        let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        io::Write::write_all(&mut &stream, line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let text = tokio::task::spawn_blocking(move || io::read_to_string(&stream).unwrap()).await.unwrap();
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{line:?}: {text}");
    }
    assert!(raw(&path, &[b'x'; 50_000]).await.contains("too_long"));
    stop.cancel();
    wait_until_async(DEADLINE, "its file goes with it", async || !path.exists()).await;
}

#[tokio::test]
async fn peers_that_say_nothing_are_let_go_and_others_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let stop = start(bind(&at(&path), Path::new("p.yaml"), &around(directory.path())).unwrap().unwrap());
    let mut silent = Vec::new();
    for _ in 0..AT_A_TIME {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    assert!(matches!(ask(&path, Request::Status).await, Ok(Answer::Status(_))), "as soon as one was let go");
    stop.cancel();
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let first = bind(&at(&path), Path::new("p.yaml"), &around(directory.path())).unwrap().unwrap();
    let second = bind(&at(&path), Path::new("p.yaml"), &around(directory.path()));
    assert!(matches!(second, Err(BindError::InUse { .. })), "{second:?}");
    let stop = start(first);
    assert!(matches!(ask(&path, Request::Status).await, Ok(Answer::Status(_))));
    stop.cancel();
    wait_until_async(DEADLINE, "gone", async || !path.exists()).await;

    fs::write(&path, "precious").unwrap();
    let third = bind(&at(&path), Path::new("p.yaml"), &around(directory.path()));
    assert!(matches!(third, Err(BindError::NotASocket { .. })), "{third:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn several_provisioners_find_places_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let places = around(directory.path());
    let (a, b) = (Path::new("/nonexistent/a.yaml"), Path::new("/nonexistent/b.yaml"));
    let first = bind(&ControlSocket::Default, a, &places).unwrap().unwrap();
    let second = bind(&ControlSocket::Default, b, &places).unwrap().unwrap();
    assert_eq!(first.path(), places.candidates(None)[0]);
    assert_eq!(second.path(), places.candidates(Some(b))[0]);
    assert_eq!(fs::metadata(directory.path().join("choria-provisioner")).unwrap().mode() & 0o777, 0o700);
    // A third with the second's file has no place left: told, and no reason not to run.
    assert!(bind(&ControlSocket::Default, b, &places).unwrap().is_none());
    assert_eq!(places.sockets().len(), 2);
    drop((first, second));
    assert!(places.sockets().is_empty());
}

#[tokio::test]
async fn a_place_that_cannot_be_used_stops_only_who_asked_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/c.sock");
    let failed = bind(&at(&missing), Path::new("p.yaml"), &around(directory.path()));
    assert!(matches!(failed, Err(BindError::Io { .. })), "{failed:?}");
    let nowhere = around(&directory.path().join("missing"));
    assert!(bind(&ControlSocket::Default, Path::new("p.yaml"), &nowhere).unwrap().is_none());
    assert!(bind(&ControlSocket::Off, Path::new("p.yaml"), &around(directory.path())).unwrap().is_none());

    // A directory that others could write to is not ours.
    let open = directory.path().join("choria-provisioner");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(bind(&ControlSocket::Default, Path::new("p.yaml"), &around(directory.path())).unwrap().is_none());
}
