//! What the engine tells by itself.
//!
//! # Guarantees
//! - What happens after [`Observed::Connected`] was sent is told. After a cut the engine is asked for everything since the last event that
//!   was seen; it keeps 256, and whoever looks at everything upon `Connected` needs none of them.
//! - A slow receiver loses nothing and holds nobody up: what waits for it is merged, since all that is told is where to look.
//! - A stream that is silent is not trusted: the engine is asked whether it is there, and the stream is made anew now and then.
//!
//! # Assumptions
//! - The engine's clock is ours: it is on the same machine.

use super::{
    Observed, RuntimeError,
    wire::{ANSWERS_WITHIN, Connection},
};
use crate::metrics::Metrics;
use bollard::{
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::EventsOptions,
};
use futures_util::{Stream, StreamExt};
use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A stream that was cut sooner does not end the backing off.
const LASTED: Duration = Duration::from_secs(1);
/// How long nothing may come before the engine is asked whether it is there, and whether it went on existing.
const SILENCE: Duration = Duration::from_secs(30);
/// How long nothing may come before the subscription is made anew, though the engine is there.
const TRUSTED: Duration = Duration::from_secs(5 * 60);

/// Health checks and what people do also run commands; of those nothing is to be told.
const EVENTS: [&str; 9] =
    ["start", "die", "health_status", "destroy", "rename", "pause", "unpause", "mount", "unmount"];

pub(super) async fn watch(socket: &Path, to: mpsc::Sender<Observed>, metrics: &Arc<Metrics>) {
    let mut watch = Watch { waiting: Waiting::default(), to, seen: None, metrics: metrics.clone() };
    let (mut pause, mut is_lost) = (FIRST_PAUSE, false);
    while !watch.to.is_closed() {
        let began = Instant::now();
        let End::Lost(error) = watch.follow(socket, &mut is_lost).await else { continue };
        if began.elapsed() >= LASTED {
            pause = FIRST_PAUSE;
        }
        if !is_lost {
            is_lost = true;
            tracing::warn!(%error, "the engine's events are out of reach");
            metrics.connected(false);
            watch.waiting.push(Observed::Lost);
        }
        watch.idle(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why a stream is not followed any more.
enum End {
    Lost(RuntimeError),
    /// It is made anew, or nobody listens.
    Over,
}

struct Watch {
    waiting: Waiting,
    to: mpsc::Sender<Observed>,
    /// Of the last event, or of the first subscription.
    seen: Option<Duration>,
    metrics: Arc<Metrics>,
}

/// What the receiver has not taken yet, each once.
#[derive(Default)]
struct Waiting(VecDeque<Observed>);

// === impl Watch ===

impl Watch {
    /// Subscribes, and tells what comes until the stream ends.
    async fn follow(&mut self, socket: &Path, is_lost: &mut bool) -> End {
        let heard = Arc::new(Notify::new());
        let engine = match Connection::hearing(socket, Some(Arc::clone(&heard))).await {
            Ok(engine) => engine,
            Err(error) => return End::Lost(error),
        };
        let since = *self.seen.get_or_insert_with(now);
        let mut events = pin!(engine.docker.events(Some(options(since))));
        if let Some(end) = self.subscribe(&mut events, &heard).await {
            return end;
        }
        *is_lost = false;
        self.metrics.connected(true);
        tracing::debug!("the engine's events are followed");
        self.waiting.push(Observed::Connected);
        self.tell(socket, events).await
    }

    /// Waits for the engine's answer, which comes before any event.
    async fn subscribe(&mut self, events: &mut (impl Stream<Item = Told> + Unpin), heard: &Notify) -> Option<End> {
        tokio::select! {
            biased;
            () = heard.notified() => None,
            event = events.next() => match event {
                // Both at once.
                Some(Ok(event)) => {
                    self.waiting.push(Observed::Connected);
                    self.note(event);
                    None
                }
                end => Some(End::Lost(lost(end))),
            },
            () = sleep(ANSWERS_WITHIN) => Some(End::Lost(RuntimeError::Unreachable("it does not answer".into()))),
            () = self.to.closed() => Some(End::Over),
        }
    }

    async fn tell(&mut self, socket: &Path, mut events: impl Stream<Item = Told> + Unpin) -> End {
        let to = self.to.clone();
        let (mut last, mut asked) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        (last, asked) = (Instant::now(), Instant::now());
                        self.note(event);
                    }
                    end => return End::Lost(lost(end)),
                },
                room = to.reserve(), if !self.waiting.is_empty() => match room {
                    Ok(room) => self.waiting.hand_on(room),
                    Err(_) => return End::Over,
                },
                () = to.closed() => return End::Over,
                () = sleep_until(asked + SILENCE) => {
                    if last.elapsed() >= TRUSTED {
                        return End::Over;
                    }
                    if let Err(error) = Connection::to(socket).await {
                        return End::Lost(error);
                    }
                    asked = Instant::now();
                }
            }
        }
    }

    fn note(&mut self, event: EventMessage) {
        let at = event.time_nano.and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
        self.seen = self.seen.max(at);
        if let Some(at) = at {
            self.metrics.heard(UNIX_EPOCH + at);
        }
        let Some(id) = event.actor.and_then(|actor| actor.id) else { return };
        match event.typ {
            Some(EventMessageTypeEnum::CONTAINER) => self.waiting.push(Observed::Container(id)),
            Some(EventMessageTypeEnum::VOLUME) => self.waiting.push(Observed::Volume(id)),
            _ => {}
        }
    }

    /// Waits, and hands on meanwhile what there is.
    async fn idle(&mut self, pause: Duration) {
        let to = self.to.clone();
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                room = to.reserve(), if !self.waiting.is_empty() => match room {
                    Ok(room) => self.waiting.hand_on(room),
                    Err(_) => return,
                },
                () = to.closed() => return,
            }
        }
    }
}

type Told = Result<EventMessage, bollard::errors::Error>;

// === impl Waiting ===

impl Waiting {
    fn push(&mut self, observed: Observed) {
        match observed {
            // Whoever looks at everything has then looked at all that waits.
            Observed::Connected => self.0.clear(),
            Observed::Lost => self.0.retain(|waiting| *waiting != Observed::Connected),
            _ if self.0.contains(&observed) => return,
            _ => {}
        }
        self.0.push_back(observed);
    }

    fn hand_on(&mut self, room: mpsc::Permit<'_, Observed>) {
        if let Some(observed) = self.0.pop_front() {
            room.send(observed);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn options(since: Duration) -> EventsOptions {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let filters =
        HashMap::from([("type".to_owned(), words(&["container", "volume"])), ("event".to_owned(), words(&EVENTS))]);
    let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    EventsOptions { since: Some(since), until: None, filters: Some(filters) }
}

fn lost(end: Option<Told>) -> RuntimeError {
    match end {
        Some(Err(error)) => RuntimeError::of(error, "tell its events", None),
        _ => RuntimeError::Unreachable("its events have ended".into()),
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Half of it to all of it: those that were cut off together come back one by one.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or_default();
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Observed::{Connected, Container, Lost};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    fn waiting(pushed: impl IntoIterator<Item = Observed>) -> Vec<Observed> {
        let mut waiting = Waiting::default();
        pushed.into_iter().for_each(|observed| waiting.push(observed));
        waiting.0.into()
    }

    #[test]
    fn what_waits_is_merged_and_the_last_word_on_the_connection_stays() {
        let a = || Container("a".into());
        let b = || Container("b".into());
        assert_eq!(waiting([a(), b(), a()]), [a(), b()]);
        assert_eq!(waiting([a(), Lost, Connected, b()]), [Connected, b()]);
        assert_eq!(waiting([Connected, a(), Lost]), [a(), Lost]);
        assert_eq!(waiting([Connected, a(), Lost, Connected]), [Connected]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_lost_once_the_engine_does_not_answer_either() {
        let began = Instant::now();
        let end = watch_of_nobody().tell(Path::new("/no/such/socket"), futures_util::stream::pending()).await;
        assert!(matches!(end, End::Lost(_)));
        assert!((SILENCE..SILENCE * 2).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_made_anew_though_the_engine_answers() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        });
        let began = Instant::now();
        let end = watch_of_nobody().tell(&socket, futures_util::stream::pending()).await;
        assert!(matches!(end, End::Over));
        assert!((TRUSTED..TRUSTED * 2).contains(&began.elapsed()));
    }

    /// Whose receiver is there, and takes nothing.
    fn watch_of_nobody() -> Watch {
        let (to, told) = mpsc::channel(1);
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(told);
        });
        Watch { waiting: Waiting::default(), to, seen: None, metrics: Arc::default() }
    }

    #[test]
    fn since_is_what_the_engine_reads_to_the_nanosecond() {
        let since = options(Duration::new(1_700_000_000, 42)).since;
        assert_eq!(since.as_deref(), Some("1700000000.000000042"));
    }

    #[test]
    fn a_pause_varies_between_half_and_all_of_it() {
        let pauses: Vec<_> = (0..100).map(|_| jittered(LONGEST_PAUSE)).collect();
        assert!(pauses.iter().all(|pause| (LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
