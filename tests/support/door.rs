//! A door before an engine's socket: it sees each call that changes something, can hold one back before or after the engine did
//! it, and can cut every connection.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// `docker.sock` in a folder of its own, to be a plugin's `engine.source`. Closed when dropped.
pub struct Door {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

/// Where a call is held: before the engine hears of it, or after it did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

#[derive(Default)]
struct State {
    closed: bool,
    connections: Vec<UnixStream>,
    /// When somebody knocked.
    knocks: Vec<tokio::time::Instant>,
    streams: usize,
    calls: Vec<String>,
    hold: Option<(usize, When)>,
    /// Whether what only asks is counted as a call too.
    all: bool,
    held: bool,
    ended: bool,
}

// === impl Door ===

impl Door {
    /// Before the engine at `engine`, with its socket in `folder`, which must be short enough for a socket's path.
    pub fn before(engine: &Path, folder: &Path) -> Self {
        let folder = folder.to_owned();
        fs::create_dir_all(&folder).expect("the door's folder");
        let listener = UnixListener::bind(folder.join("docker.sock")).expect("the door's socket");
        let state = Arc::new(Mutex::new(State::default()));
        let (engine, shared) = (engine.to_owned(), state.clone());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let mut state = lock(&shared);
                if state.ended {
                    return;
                }
                state.knocks.push(tokio::time::Instant::now());
                if state.closed {
                    continue;
                }
                // Where the engine does not answer, nobody else does.
                let _ = pass(near, &engine, &mut state, &shared);
            }
        });
        Self { folder, state }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Cuts every connection there is.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut lock(&self.state).connections);
        let open = connections.iter().filter(|connection| connection.shutdown(Shutdown::Both).is_ok());
        open.count()
    }

    /// Cuts every connection, and lets nobody in until [`Door::open`].
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.cut();
    }

    /// Lets everybody in, and every call through.
    pub fn open(&self) {
        let mut state = lock(&self.state);
        (state.closed, state.hold, state.held) = (false, None, false);
    }

    /// When somebody knocked since the last time that this was asked.
    pub fn knocks(&self) -> Vec<tokio::time::Instant> {
        std::mem::take(&mut lock(&self.state).knocks)
    }

    /// How often the stream of events was asked for.
    pub fn streams(&self) -> usize {
        lock(&self.state).streams
    }

    /// The calls that change something, `POST /containers/…`, since the last [`Door::hold`] or the beginning.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.state).calls.clone()
    }

    /// Counts calls from zero, and holds the one with this number for ever.
    pub fn hold(&self, number: usize, when: When) {
        let mut state = lock(&self.state);
        state.calls.clear();
        (state.hold, state.held, state.all) = (Some((number, when)), false, false);
    }

    /// The same, and also counts what only asks.
    pub fn hold_any(&self, number: usize, when: When) {
        self.hold(number, when);
        lock(&self.state).all = true;
    }

    /// Whether the call was made that is to be held.
    pub fn is_holding(&self) -> bool {
        lock(&self.state).held
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        lock(&self.state).ended = true;
        self.cut();
        // Wakes the thread, which then ends.
        let _ = UnixStream::connect(self.folder.join("docker.sock"));
        let _ = fs::remove_file(self.folder.join("docker.sock"));
    }
}

/// Begins to pass one connection on in both directions.
fn pass(near: UnixStream, engine: &Path, state: &mut State, shared: &Arc<Mutex<State>>) -> io::Result<()> {
    let far = UnixStream::connect(engine)?;
    state.connections.extend([near.try_clone()?, far.try_clone()?]);
    let swallow = Arc::new(Mutex::new(false));
    let (near_out, far_out) = (near.try_clone()?, far.try_clone()?);
    let (asked, answered) = (shared.clone(), shared.clone());
    let swallowing = swallow.clone();
    thread::spawn(move || {
        let mut dead = false;
        copy(near, far_out, |chunk| {
            let Some((method, path)) = request_of(chunk) else { return !dead };
            let mut state = lock(&asked);
            if method == "GET" {
                state.streams += usize::from(path == "/events");
                if !state.all || path == "/events" || path == "/_ping" {
                    return !dead;
                }
            }
            let call = format!("{method} {path}");
            let number = state.calls.len();
            state.calls.push(call);
            match state.hold.filter(|(at, _)| *at == number) {
                Some((_, When::Before)) => {
                    state.held = true;
                    // What follows is this call's body.
                    dead = true;
                }
                Some((_, When::After)) => *lock(&swallow) = true,
                None => {}
            }
            !dead
        });
    });
    thread::spawn(move || {
        copy(far, near_out, |_| {
            let held = *lock(&swallowing);
            if held {
                lock(&answered).held = true;
            }
            !held
        });
    });
    Ok(())
}

/// Passes on what `may_pass`; the rest is swallowed, with the connection left open.
fn copy(mut from: UnixStream, mut to: UnixStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if may_pass(&buffer[..read]) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Method and path, without the API's version, if a request begins here. The client writes a request's head at once.
fn request_of(chunk: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(chunk.split(|byte| *byte == b'\r').next()?).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let path = rest.strip_suffix(" HTTP/1.1")?.split('?').next()?;
    let path = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
    matches!(method, "GET" | "POST" | "DELETE" | "PUT").then_some((method, path))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
