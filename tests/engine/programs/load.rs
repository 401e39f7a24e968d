//! Clients that ask without a pause, and what they see. A failure is what a correct client would show its caller.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(5);
/// After which a client turns to the next address. Docker's name server knows a member of a network a moment before it can
/// be reached, and the kernel tries again after a second only. One that has just gone does not answer at all.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(3);
/// How long a name server may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Docker's name server in each container's network namespace.
const NAME_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// Clients at work, each in a thread, until [`Load::end`].
pub struct Load {
    seen: Arc<Mutex<Tally>>,
    end: Vec<mpsc::Sender<()>>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often each answer came.
    pub answers: BTreeMap<String, usize>,
    pub failures: Vec<String>,
    pub slowest: Duration,
}

// === impl Load ===

impl Load {
    pub fn none() -> Self {
        Self { seen: Arc::default(), end: Vec::new(), clients: Vec::new() }
    }

    /// `count` more clients, each of which makes its `request` again and again. In the network namespace of a process, if
    /// one is given.
    pub fn add<R>(mut self, count: usize, pid: Option<i64>, client: impl Fn() -> R) -> Self
    where
        R: FnMut() -> Result<String, String> + Send + 'static,
    {
        for _ in 0..count {
            let (mut request, seen, (end, ended)) = (client(), Arc::clone(&self.seen), mpsc::channel());
            self.end.push(end);
            self.clients.push(thread::spawn(move || {
                if let Some(pid) = pid {
                    enter(pid);
                }
                while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    let since = Instant::now();
                    let answer = request();
                    let mut seen = seen.lock().unwrap();
                    seen.slowest = seen.slowest.max(since.elapsed());
                    match answer {
                        Ok(answer) => *seen.answers.entry(answer).or_default() += 1,
                        Err(failure) => seen.failures.push(failure),
                    }
                }
            }));
        }
        self
    }

    /// What was seen so far.
    pub fn seen(&self) -> Tally {
        self.seen.lock().unwrap().clone()
    }

    pub fn end(self) -> Tally {
        drop(self.end);
        self.clients.into_iter().for_each(|client| client.join().expect("a client"));
        self.seen.lock().unwrap().clone()
    }
}

// === impl Tally ===

impl Tally {
    pub fn count(&self, answer: &str) -> usize {
        self.answers.get(answer).copied().unwrap_or(0)
    }

    /// That nothing failed, and that this was put to the test.
    #[track_caller]
    pub fn assert_faultless(&self, at_least: usize) {
        let requests: usize = self.answers.values().sum();
        let (answers, failures, slowest) = (self.answers.len(), self.failures.len(), self.slowest);
        eprintln!(
            "{requests} requests, {answers} different answers, {failures} failures, the slowest took {slowest:?}"
        );
        let first: Vec<_> = self.failures.iter().take(5).collect();
        assert!(first.is_empty(), "{} of {requests} failed, such as {first:#?}", self.failures.len());
        assert!(requests >= at_least, "only {requests} requests: they show nothing");
    }
}

/// One request as a client makes it that knows a name: asks for its addresses, tries them in turn until one answers, and
/// reads the answer, which must be whole and 200.
///
/// A server that ends resets the connections that it has not accepted yet; nginx too. A request that may be repeated and got
/// no byte of an answer is sent to the next address then (RFC 9112, 9.3.1).
pub fn get_by_name(name: &str) -> Result<String, String> {
    let mut refusals = Vec::new();
    for address in resolve(name)? {
        match connect((address, 80).into()).and_then(|stream| get(stream, false)) {
            Ok((body, _)) => return Ok(body),
            Err(error) if error.kind() == io::ErrorKind::Other => return Err(format!("{address}: {error}")),
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    Err(format!("no address of `{name}` answers: {refusals:?}"))
}

/// `GET /` on a connection; the body, and the connection if it can be used again. An answer that is not whole, or not 200, is
/// [`io::ErrorKind::Other`].
pub fn get<S: Read + Write>(mut stream: S, keep: bool) -> io::Result<(String, Option<S>)> {
    let connection = if keep { "keep-alive" } else { "close" };
    write!(stream, "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: {connection}\r\n\r\n")?;
    stream.flush()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match reader.read_line(&mut head) {
            Ok(0) if head.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Err(io::Error::other("half an answer")),
            Ok(_) => {}
            Err(error) if head.is_empty() => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length: usize =
        field("content-length").and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("no length"))?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).map_err(io::Error::other)?;
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok((body, (keep && !closes).then(|| reader.into_inner())))
}

/// A connection with time limits.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The addresses of a name, in the name server's order. The library's resolver would ask the host's.
fn resolve(name: &str) -> Result<Vec<Ipv4Addr>, String> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a short label"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let ask = || -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(NAME_SERVER)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.send(&query)?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    // As resolvers do, for UDP may lose one.
    let answer = (0..3).map(|_| ask()).find_map(Result::ok).ok_or("the name server does not answer")?;
    let short = || format!("an answer of {} bytes", answer.len());
    let code = answer.get(3).ok_or_else(short)? & 0xf;
    let addresses = addresses(&answer, query.len()).ok_or_else(short)?;
    match addresses.is_empty() {
        true => Err(format!("`{name}` has no address (code {code})")),
        false => Ok(addresses),
    }
}

/// The A records after the question, which ends at `at`.
fn addresses(answer: &[u8], mut at: usize) -> Option<Vec<Ipv4Addr>> {
    let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let mut found = Vec::new();
    for _ in 0..count {
        // A pointer to the name, or the name itself.
        while answer.get(at)? & 0xc0 == 0 && *answer.get(at)? != 0 {
            at += usize::from(*answer.get(at)?) + 1;
        }
        at += if answer.get(at)? & 0xc0 == 0 { 1 } else { 2 };
        let kind = u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]);
        let length = usize::from(u16::from_be_bytes([*answer.get(at + 8)?, *answer.get(at + 9)?]));
        let data = answer.get(at + 10..at + 10 + length)?;
        if let (1, Ok(address)) = (kind, <[u8; 4]>::try_from(data)) {
            found.push(address.into());
        }
        at += 10 + length;
    }
    Some(found)
}

fn enter(pid: i64) {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("a network namespace");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("to enter it");
}
