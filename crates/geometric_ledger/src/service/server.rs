//! The side of the process that has the ledger open: a thread that listens, and one for each reader.
//!
//! A reader must not disturb the writer. Its thread takes no lock that a batch waits under for longer
//! than a moment, and has a lower priority. What it reads is a view, which keeps the write-ahead log
//! that the view needs: so a reader that takes nothing for a while is dropped, and so is one that
//! would have more of the log kept than `Options::reader_log_bytes`.

use super::protocol::{
    Admission, Description, Failure, FrameKind, Head, Hello, Request, SOCKET, Step, VERSION,
    WireProof, decode, encode, encode_account, read_frame, size, write_frame,
};
use crate::error::Error;
use crate::history::View;
use crate::ledger::GeometricLedger;
use crate::recorded::StatementQuery;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Readers at one time.
const READERS: usize = 16;
/// A reader that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of data in a frame.
const FRAME: usize = 256 << 10;
/// How often a reader is told how far something is.
const TELL: Duration = Duration::from_millis(100);
/// Batches, keys, states or findings in one answer at the most.
const MOST: usize = 10_000;

/// The threads that answer; dropping it ends them.
pub struct Service {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
    directory: OwnedFd,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    readers: Mutex<Vec<(UnixStream, JoinHandle<()>)>>,
}

/// A path to a name in a directory that is short enough for a socket, whatever the directory's is.
pub fn short_path(directory: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

impl Service {
    /// Answers readers of a ledger, of which `ledger` gives handles. Whoever has the ledger's lock may
    /// take the place of a socket that a killed process left.
    pub fn start(
        directory: &Path,
        ledger: impl Fn() -> GeometricLedger + Send + 'static,
    ) -> Result<Self, Error> {
        let what = || Error::io(directory.join(SOCKET).display().to_string());
        let directory_fd = open_directory(directory).map_err(what())?;
        let path = short_path(&directory_fd, SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(what()(error)),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(&path).map_err(what())?);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).map_err(what())?;
        let shared = Arc::new(Shared::default());
        let (listening, sharing) = (listener.clone(), shared.clone());
        let thread = Builder::new()
            .name("ledger-service".into())
            .spawn(move || listen(&listening, &sharing, ledger))
            .map_err(Error::io("a thread"))?;
        Ok(Service {
            shared,
            listener,
            thread: Some(thread),
            directory: directory_fd,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let readers = std::mem::take(&mut *self.shared.readers.lock().unwrap());
        for (stream, _) in &readers {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for (_, thread) in readers {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(short_path(&self.directory, SOCKET));
    }
}

fn listen(listener: &UnixListener, shared: &Shared, ledger: impl Fn() -> GeometricLedger) {
    while !shared.stop.load(Ordering::Acquire) {
        let accepted = listener.accept().map(|(stream, _)| stream);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let begun = accepted.and_then(|stream| begin(shared, stream, &ledger));
        if let Err(error) = begun {
            tracing::warn!(%error, "a reader could not be answered");
            std::thread::sleep(TELL);
        }
    }
}

fn begin(
    shared: &Shared,
    stream: UnixStream,
    ledger: impl Fn() -> GeometricLedger,
) -> io::Result<()> {
    let mut readers = shared.readers.lock().unwrap();
    readers.retain(|(_, thread)| !thread.is_finished());
    stream.set_write_timeout(Some(PATIENCE))?;
    if readers.len() >= READERS {
        let failure = Failure::Other(format!("the ledger has {READERS} readers already"));
        let content = encode(&failure).map_err(io::Error::other)?;
        return write_frame(&mut &stream, FrameKind::Failure, &content);
    }
    let (ledger, ours) = (ledger(), stream.try_clone()?);
    let work = move || {
        // Linux gives each thread a priority of its own.
        let _ = rustix::process::setpriority_process(None, 10);
        serve(&ledger, &stream);
        let _ = stream.shutdown(Shutdown::Both);
    };
    let thread = Builder::new().name("ledger-reader".into()).spawn(work)?;
    readers.push((ours, thread));
    Ok(())
}

/// Answers one reader until it goes.
pub fn serve(ledger: &GeometricLedger, stream: &UnixStream) {
    let mut out = Out {
        stream,
        told: Instant::now(),
    };
    match admit(ledger, &mut out) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return out.fail(&error),
    }
    while let Ok((FrameKind::Request, content)) = read_frame(&mut &*stream) {
        let answered = decode(&content).and_then(|request| answer(ledger, request, &mut out));
        if let Err(error) = answered {
            tracing::debug!(%error, "a reader");
            out.fail(&error);
        }
    }
}

/// Lets in who knows the ledger's key.
fn admit(ledger: &GeometricLedger, out: &mut Out) -> Result<bool, Error> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge).map_err(|error| Error::Key(error.to_string()))?;
    let hello = Hello {
        version: VERSION,
        challenge,
    };
    out.put(FrameKind::Hello, &encode(&hello)?)?;
    let Ok((FrameKind::Answer, content)) = read_frame(&mut &*out.stream) else {
        return Ok(false);
    };
    let admission: Admission = decode(&content)?;
    if admission.version != VERSION {
        let what = format!(
            "the ledger is open in a program that answers version {VERSION} of the protocol, and this one asks \
             in version {}",
            admission.version
        );
        return Err(Error::Reader(what));
    }
    let expected = ledger.core.encryption.prove(&challenge);
    // This comparison takes the same time whatever differs.
    if blake3::Hash::from(admission.proof) != blake3::Hash::from(expected) {
        return Err(Error::Key("the key does not open this ledger".into()));
    }
    out.answer(&())?;
    Ok(true)
}

struct Out<'a> {
    stream: &'a UnixStream,
    told: Instant,
}

impl Out<'_> {
    fn put(&mut self, kind: FrameKind, content: &[u8]) -> Result<(), Error> {
        write_frame(&mut self.stream, kind, content).map_err(Error::io("the reader"))
    }

    fn answer(&mut self, value: &impl Serialize) -> Result<(), Error> {
        self.put(FrameKind::Answer, &encode(value)?)
    }

    fn fail(&mut self, error: &Error) {
        if let Ok(content) = encode(&Failure::from(error)) {
            // Whoever is gone need not be told.
            let _ = self.put(FrameKind::Failure, &content);
        }
    }

    /// Says now and then how far something is. Fails if nobody listens any more.
    fn progress(&mut self, done: u64, total: u64) -> Result<(), Error> {
        if self.told.elapsed() < TELL {
            return Ok(());
        }
        self.told = Instant::now();
        self.put(FrameKind::Progress, &encode(&Step { done, total })?)
    }
}

/// Bytes that become data.
struct Data<'a, 'b> {
    out: &'a mut Out<'b>,
    buffer: Vec<u8>,
    sent: u64,
    /// About how much there is to send.
    total: u64,
    hold: Hold<'a>,
}

impl Data<'_, '_> {
    fn send(&mut self) -> io::Result<()> {
        self.hold.check().map_err(io::Error::other)?;
        let sent = self.out.put(FrameKind::Data, &self.buffer);
        self.sent += self.buffer.len() as u64;
        self.buffer.clear();
        sent.map_err(io::Error::other)
    }
}

impl Write for Data<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend(bytes);
        if self.buffer.len() >= FRAME {
            self.send()?;
        }
        Ok(bytes.len())
    }

    /// Also tells how much was sent, so that a reader who is gone is noticed where there is nothing to send.
    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        self.hold.check().map_err(io::Error::other)?;
        let told = self.out.progress(self.sent, self.total.max(self.sent));
        told.map_err(io::Error::other)
    }
}

/// How much of the write-ahead log is kept for one reader.
struct Hold<'a> {
    ledger: &'a GeometricLedger,
    start: u64,
}

impl<'a> Hold<'a> {
    fn new(ledger: &'a GeometricLedger) -> Self {
        Hold {
            ledger,
            start: ledger.core.wal.appended(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let limit = self.ledger.core.options.reader_log_bytes;
        if self.ledger.core.wal.appended() - self.start <= limit {
            return Ok(());
        }
        Err(Error::Reader(format!(
            "more than {limit} bytes were written to the log while this was read, and keeping more of it \
             for readers is not allowed; read from a follower, or open the ledger with more `reader_log_bytes`"
        )))
    }
}

fn answer(ledger: &GeometricLedger, request: Request, out: &mut Out) -> Result<(), Error> {
    match request {
        Request::Describe => out.answer(&describe(ledger)?),
        Request::Stats => out.answer(&ledger.stats()),
        Request::Verify => {
            let mut findings = ledger.verify_with(|done, total| out.progress(done, total))?;
            let count = findings.len() as u64;
            findings.truncate(MOST);
            out.answer(&(count, findings))
        }
        Request::Audit => {
            let hold = Hold::new(ledger);
            let audit = ledger.audit_with(|done, total| {
                hold.check()?;
                out.progress(done, total)
            })?;
            out.answer(&audit)
        }
        Request::Get { keys, at } => {
            let view = match at {
                Some(sequence) => ledger.view_at(sequence)?,
                None => ledger.view(),
            };
            let accounts = view.get_many(&keys)?;
            out.answer(&(view.sequence(), accounts))
        }
        Request::AccountHistory { key, limit } => {
            let limit = usize::try_from(limit).unwrap_or(MOST).min(MOST);
            out.answer(&ledger.account_history(&key, limit)?)
        }
        Request::Transfers { ids } => {
            let view = ledger.view();
            let records = ids.iter().map(|id| view.transfer(id));
            out.answer(&records.collect::<Result<Vec<_>, _>>()?)
        }
        Request::Statement { account, query } => {
            let view = ledger.view();
            let query = StatementQuery {
                limit: query.limit.min(MOST),
                ..query
            };
            let page = view.statement(&account, &query)?;
            out.answer(&(page, view.reserved(&account)?))
        }
        Request::Accounts => accounts(ledger, out),
        Request::Snapshot { since } => {
            let mut data = Data {
                out,
                buffer: Vec::with_capacity(FRAME),
                sent: 0,
                total: ledger.stats().slots_bytes,
                hold: Hold::new(ledger),
            };
            let info = ledger.write_snapshot(&mut data, "the snapshot", since.unwrap_or(0))?;
            out.answer(&info)
        }
        Request::Batches { from, to } => {
            // Who reads batches may put them where no crash reaches them.
            if !ledger.core.options.read_only {
                ledger.core.wal.sync_to(ledger.core.wal.appended())?;
            }
            let newest = ledger.history().end().min(&to).to_owned();
            let numbers = (from..=newest).take(MOST);
            let batches = numbers.filter_map(|sequence| ledger.batch(sequence).transpose());
            out.answer(&batches.collect::<Result<Vec<_>, _>>()?)
        }
        Request::ProveBatch { sequence, size } => {
            let proof = match size {
                Some(size) => ledger.prove_batch_in(sequence, self::size(size)?)?,
                None => ledger.prove_batch(sequence)?,
            };
            out.answer(&WireProof::from(proof))
        }
        Request::ProveConsistency { old, new } => {
            let path = ledger.prove_consistency(size(old)?, size(new)?)?;
            let roots = (ledger.root_at(size(old)?)?, ledger.root_at(size(new)?)?);
            let bytes = |hash: &merkle_tree::Hash| *hash.as_bytes();
            let path: Vec<_> = path.iter().map(bytes).collect();
            out.answer(&(path, bytes(&roots.0), bytes(&roots.1)))
        }
    }
}

fn describe(ledger: &GeometricLedger) -> Result<Description, Error> {
    let core = &ledger.core;
    let view = ledger.view();
    Ok(Description {
        info: ledger.info(),
        recovery: ledger.recovery(),
        process: (!core.options.read_only).then(std::process::id),
        following: core.following.load(Ordering::Acquire),
        history: ledger.history().into_inner(),
        pruned: core.batches.pruned(),
        head: head(ledger, &view)?,
    })
}

fn head(ledger: &GeometricLedger, view: &View) -> Result<Head, Error> {
    let sequence = view.sequence();
    Ok(Head {
        ledger: ledger.info().id,
        sequence,
        accounts: ledger
            .batch(sequence)?
            .map_or(0, |batch| batch.totals.accounts),
        root: *ledger.root_at(size(sequence)?)?.as_bytes(),
    })
}

/// All accounts: first what they are as of, then the data, then how many there were.
fn accounts(ledger: &GeometricLedger, out: &mut Out) -> Result<(), Error> {
    let view = ledger.view();
    out.answer(&head(ledger, &view)?)?;
    let mut data = Data {
        out,
        buffer: Vec::with_capacity(FRAME + super::protocol::ACCOUNT),
        sent: 0,
        total: ledger.stats().accounts * super::protocol::ACCOUNT as u64,
        hold: Hold::new(ledger),
    };
    let mut count = 0u64;
    for item in view.iter() {
        let (key, account) = item?;
        encode_account(&key, &account, &mut data.buffer);
        count += 1;
        if data.buffer.len() >= FRAME {
            data.send().map_err(reading)?;
        }
    }
    data.flush().map_err(reading)?;
    out.answer(&count)
}

/// An error that went through `Write`.
pub fn reading(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("the reader")(error),
    }
}
