//! A proxy before the engine's socket that can cut off whoever is connected, and keep connections from being made.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

pub struct Cutter {
    pub socket: PathBuf,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    cut: watch::Sender<u64>,
    refuses: AtomicBool,
    accepted: AtomicUsize,
    /// The first lines of all requests.
    asked: Mutex<Vec<String>>,
}

// === impl Cutter ===

impl Cutter {
    pub fn before(engine: &Path, folder: &Path) -> Self {
        let socket = folder.join("cut.sock");
        let listener = UnixListener::bind(&socket).expect("a short path");
        let state = Arc::new(State {
            cut: watch::Sender::new(0),
            refuses: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, engine.to_owned(), Arc::clone(&state)));
        Self { socket, state, task }
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.state.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Whether connections that come end at once.
    pub fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }

    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, engine: PathBuf, state: Arc<State>) {
    while let Ok((near, _)) = listener.accept().await {
        state.accepted.fetch_add(1, Ordering::SeqCst);
        if !state.refuses.load(Ordering::SeqCst) {
            tokio::spawn(pass(near, engine.clone(), Arc::clone(&state)));
        }
    }
}

async fn pass(mut near: UnixStream, engine: PathBuf, state: Arc<State>) {
    let mut cut = state.cut.subscribe();
    let mut first = vec![0; 4096];
    let Ok(length) = near.read(&mut first).await else { return };
    let line = String::from_utf8_lossy(&first[..length]).lines().next().unwrap_or_default().to_owned();
    state.asked.lock().unwrap().push(line);
    let Ok(mut far) = UnixStream::connect(engine).await else { return };
    if far.write_all(&first[..length]).await.is_err() {
        return;
    }
    let ((mut near_reads, mut near_writes), (mut far_reads, mut far_writes)) = (near.split(), far.split());
    let answers = async {
        let mut bytes = vec![0; 65536];
        while let Ok(length @ 1..) = far_reads.read(&mut bytes).await {
            if near_writes.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = async { drop(copy(&mut near_reads, &mut far_writes).await); std::future::pending::<()>().await } => {}
        _ = cut.changed() => {}
    }
}
