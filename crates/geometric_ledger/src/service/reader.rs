//! The side that asks.

use super::protocol::{
    ACCOUNT, Admission, Description, Failure, FrameKind, Head, Hello, Request, SOCKET, Step,
    VERSION, WireProof, decode, decode_account, encode, read_frame, unexpected, write_frame,
};
use super::server::{open_directory, serve, short_path};
use crate::SnapshotInfo;
use crate::account::Key;
use crate::ledger::GeometricLedger;
use crate::recorded::{StatementPage, StatementQuery, TransferId, TransferRecord};
use crate::snapshot::{PathLock, beside, put_in_place};
use crate::storage::disk::{Directory, Disk};
use crate::storage::superblock::Superblock;
use crate::{
    Account, AccountHistory, Audit, Batch, BatchProof, Error, Finding, LedgerStats, Options,
};
use merkle_tree::{Hash, TreeSize};
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Reads a ledger, whether a process has it open or not.
///
/// If nobody has it open for writing, it is opened for reading. If a process has, that process answers on
/// the socket in the ledger's directory, and is not disturbed by it. Each answer is of one
/// batch, which it names.
///
/// ```
/// # use geometric_ledger::{Account, GeometricLedger, Options, Reader};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("ledger");
/// let ledger = GeometricLedger::new(&path)?;
/// ledger.update_batch(&[([1; 32], Account::with_balance(100))])?;
///
/// // In another process, say.
/// let mut reader = Reader::open(&path, Options::new())?;
/// assert_eq!(reader.get(&[1; 32])?.unwrap().balance, 100);
/// assert_eq!(reader.stats()?.accounts, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    stream: UnixStream,
    /// What answers, if no other process does.
    local: Option<JoinHandle<()>>,
    progress: Box<Progress>,
}

/// Is told how much is done of how much; false stops what is done.
pub type Progress = dyn FnMut(u64, u64) -> bool + Send;

/// How long is waited for a process that has the ledger open and does not answer yet.
const PATIENCE: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(20);

impl Reader {
    /// Opens the ledger in a directory for reading. Of the options, only the key counts, and
    /// [`Options::dirty_bytes`] if nobody has the ledger open.
    ///
    /// # Errors
    /// As [`Options::open`] for reading only; [`Error::Reader`] if a process has the ledger open and does
    /// not answer.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let start = Instant::now();
        loop {
            match options.clone().read_only().open(path) {
                Err(Error::Locked) => {}
                Ok(ledger) => return Self::of_files(ledger),
                Err(error) => return Err(error),
            }
            match Self::of_process(path, &options) {
                Err(Error::Io { source, .. })
                    if matches!(
                        source.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) =>
                {
                    if start.elapsed() > PATIENCE {
                        return Err(Error::Reader(
                            "a process has the ledger open for writing and does not answer: it is \
                             recovering, or it was told to answer nobody; try again, or ask it"
                                .into(),
                        ));
                    }
                    std::thread::sleep(TRY_AGAIN);
                }
                result => return result,
            }
        }
    }

    /// A ledger that is open in this process, as readers see it.
    fn of_files(ledger: GeometricLedger) -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("a socket"))?;
        let proof = ledger.core.encryption.clone();
        let local = Builder::new()
            .name("ledger-reader".into())
            .spawn(move || {
                serve(&ledger, &theirs);
                let _ = theirs.shutdown(Shutdown::Both);
            })
            .map_err(Error::io("a thread"))?;
        let mut reader = Reader {
            stream: ours,
            local: Some(local),
            progress: Box::new(|_, _| true),
        };
        reader.enter(|challenge| proof.prove(challenge))?;
        Ok(reader)
    }

    fn of_process(path: &Path, options: &Options) -> Result<Self, Error> {
        let what = || Error::io(path.join(SOCKET).display().to_string());
        let directory = open_directory(path).map_err(what())?;
        let stream = UnixStream::connect(short_path(&directory, SOCKET)).map_err(what())?;
        let mut reader = Reader {
            stream,
            local: None,
            progress: Box::new(|_, _| true),
        };
        let file = Directory::watch(path)
            .open("ledger", false)
            .map_err(Error::io("ledger"))?;
        let block = Superblock::read(&file)?.newest;
        let block = block.ok_or_else(|| Error::Format("it was never written to".into()))?;
        let (encryption, _) = block.keys(options.key.as_ref())?;
        reader.enter(|challenge| encryption.prove(challenge))?;
        Ok(reader)
    }

    fn enter(&mut self, prove: impl FnOnce(&[u8; 32]) -> [u8; 32]) -> Result<(), Error> {
        let (kind, content) = self.frame()?;
        if kind == FrameKind::Failure {
            return Err(decode::<Failure>(&content)?.into());
        }
        let hello: Hello = decode(&content)?;
        if kind != FrameKind::Hello || hello.version != VERSION {
            return Err(unexpected());
        }
        let admission = Admission {
            version: VERSION,
            proof: prove(&hello.challenge),
        };
        self.put(FrameKind::Answer, &encode(&admission)?)?;
        self.receive(&mut |_| Err(unexpected()))
    }

    /// Is called now and then by what takes long. If it returns false, that ends with an error, and
    /// so does everything after it.
    pub fn on_progress(&mut self, progress: impl FnMut(u64, u64) -> bool + Send + 'static) {
        self.progress = Box::new(progress);
    }

    /// Whether another process has the ledger open, and answers.
    pub fn is_live(&self) -> bool {
        self.local.is_none()
    }

    pub fn describe(&mut self) -> Result<Description, Error> {
        self.ask(&Request::Describe)
    }

    pub fn stats(&mut self) -> Result<LedgerStats, Error> {
        self.ask(&Request::Stats)
    }

    /// As [`GeometricLedger::verify`]: how many findings there are, and the first of them.
    pub fn verify(&mut self) -> Result<(u64, Vec<Finding>), Error> {
        self.ask(&Request::Verify)
    }

    /// As [`GeometricLedger::audit`].
    pub fn audit(&mut self) -> Result<Audit, Error> {
        self.ask(&Request::Audit)
    }

    /// The account of a key, if there is one.
    pub fn get(&mut self, key: &Key) -> Result<Option<Account>, Error> {
        let (_, accounts) = self.get_many(&[*key], None)?;
        Ok(accounts.into_iter().next().flatten())
    }

    /// The accounts of some keys, now or after a batch; and which batch that was.
    pub fn get_many(
        &mut self,
        keys: &[Key],
        at: Option<u64>,
    ) -> Result<(u64, Vec<Option<Account>>), Error> {
        let keys = keys.to_vec();
        self.ask(&Request::Get { keys, at })
    }

    /// As [`GeometricLedger::account_history`].
    pub fn account_history(&mut self, key: &Key, limit: usize) -> Result<AccountHistory, Error> {
        self.ask(&Request::AccountHistory {
            key: *key,
            limit: limit as u64,
        })
    }

    /// Recorded transfers by their ids, as [`GeometricLedger::transfer`] finds them.
    pub fn transfers(&mut self, ids: &[TransferId]) -> Result<Vec<Option<TransferRecord>>, Error> {
        self.ask(&Request::Transfers { ids: ids.to_vec() })
    }

    /// As [`GeometricLedger::statement`], at most 10,000 entries at a time; and what open transfers have
    /// taken off the account.
    pub fn statement(
        &mut self,
        account: &Key,
        query: &StatementQuery,
    ) -> Result<(StatementPage, u128), Error> {
        self.ask(&Request::Statement {
            account: *account,
            query: *query,
        })
    }

    /// All accounts as of one batch.
    pub fn accounts(&mut self) -> Result<Accounts<'_>, Error> {
        let head = self.ask(&Request::Accounts)?;
        Ok(Accounts {
            reader: self,
            head,
            data: Vec::new(),
            at: 0,
            count: 0,
            ended: false,
        })
    }

    /// As [`GeometricLedger::snapshot_to`].
    pub fn snapshot_to(
        &mut self,
        path: impl AsRef<Path>,
        since: Option<u64>,
    ) -> Result<SnapshotInfo, Error> {
        let path = path.as_ref();
        let _alone = PathLock::at(path)?;
        let partial = beside(path, "partial");
        let written = self.write_snapshot(&partial, since);
        put_in_place(&partial, path, written)
    }

    fn write_snapshot(&mut self, path: &Path, since: Option<u64>) -> Result<SnapshotInfo, Error> {
        let what = || Error::io(path.display().to_string());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file: BufWriter<File> = BufWriter::new(options.open(path).map_err(what())?);
        self.put(FrameKind::Request, &encode(&Request::Snapshot { since })?)?;
        let info = self.receive(&mut |data| file.write_all(data).map_err(what()))?;
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .map_err(what())?;
        Ok(info)
    }

    /// Batches that are on disk, from one to another, as many as go into one answer.
    pub fn batches(&mut self, from: u64, to: u64) -> Result<Vec<Batch>, Error> {
        self.ask(&Request::Batches { from, to })
    }

    /// That a batch is among the first `size`, or among all there are now.
    pub fn prove_batch(&mut self, sequence: u64, size: Option<u64>) -> Result<BatchProof, Error> {
        let proof: WireProof = self.ask(&Request::ProveBatch { sequence, size })?;
        proof.try_into()
    }

    /// That the first `new` batches begin with the first `old`: the proof, and the roots of both.
    pub fn prove_consistency(
        &mut self,
        old: TreeSize,
        new: TreeSize,
    ) -> Result<(Vec<Hash>, Hash, Hash), Error> {
        let (path, old_root, new_root): (Vec<[u8; 32]>, [u8; 32], [u8; 32]) =
            self.ask(&Request::ProveConsistency {
                old: old.get(),
                new: new.get(),
            })?;
        let path = path.into_iter().map(Hash::from).collect();
        Ok((path, old_root.into(), new_root.into()))
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Error> {
        self.put(FrameKind::Request, &encode(request)?)?;
        self.receive(&mut |_| Err(unexpected()))
    }

    fn put(&mut self, kind: FrameKind, content: &[u8]) -> Result<(), Error> {
        write_frame(&mut &self.stream, kind, content).map_err(gone)
    }

    fn frame(&mut self) -> Result<(FrameKind, Vec<u8>), Error> {
        read_frame(&mut &self.stream).map_err(gone)
    }

    /// The next answer; data before it is given to `each`.
    fn receive<T: DeserializeOwned>(
        &mut self,
        each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<T, Error> {
        loop {
            match self.part()? {
                Part::Data(data) => each(&data).inspect_err(|_| self.hang_up())?,
                Part::Answer(content) => return decode(&content),
            }
        }
    }

    /// The next frame that is not about progress.
    fn part(&mut self) -> Result<Part, Error> {
        loop {
            let (kind, content) = self.frame()?;
            match kind {
                FrameKind::Data => return Ok(Part::Data(content)),
                FrameKind::Answer => return Ok(Part::Answer(content)),
                FrameKind::Failure => return Err(decode::<Failure>(&content)?.into()),
                FrameKind::Progress => {
                    let step: Step = decode(&content)?;
                    if !(self.progress)(step.done, step.total) {
                        self.hang_up();
                        return Err(Error::Interrupted);
                    }
                }
                FrameKind::Hello | FrameKind::Request => return Err(unexpected()),
            }
        }
    }

    fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hang_up();
        if let Some(local) = self.local.take() {
            let _ = local.join();
        }
    }
}

enum Part {
    Data(Vec<u8>),
    Answer(Vec<u8>),
}

/// All accounts of a ledger, in no order of keys, as of one batch.
pub struct Accounts<'a> {
    reader: &'a mut Reader,
    head: Head,
    data: Vec<u8>,
    at: usize,
    count: u64,
    ended: bool,
}

impl Accounts<'_> {
    /// What the accounts are as of.
    pub fn head(&self) -> Head {
        self.head
    }

    fn fill(&mut self) -> Result<(), Error> {
        match self.reader.part()? {
            Part::Data(data) if data.len().is_multiple_of(ACCOUNT) => {
                (self.data, self.at) = (data, 0);
                Ok(())
            }
            Part::Data(_) => Err(unexpected()),
            Part::Answer(content) => {
                self.ended = true;
                let count: u64 = decode(&content)?;
                match count == self.count {
                    true => Ok(()),
                    false => Err(unexpected()),
                }
            }
        }
    }
}

impl Iterator for Accounts<'_> {
    type Item = Result<(Key, Account), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at == self.data.len() {
            if self.ended {
                return None;
            }
            if let Err(error) = self.fill() {
                self.ended = true;
                (self.data, self.at) = (Vec::new(), 0);
                self.reader.hang_up();
                return Some(Err(error));
            }
        }
        let bytes = self.data[self.at..].first_chunk::<ACCOUNT>()?;
        self.at += ACCOUNT;
        self.count += 1;
        Some(Ok(decode_account(bytes)))
    }
}

impl Drop for Accounts<'_> {
    fn drop(&mut self) {
        // What is left of the answer would be taken for the next one's.
        if !self.ended {
            self.reader.hang_up();
        }
    }
}

fn gone(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            Error::Reader("the process that has the ledger open has ended or hung up".into())
        }
        _ => Error::io("the ledger's socket")(error),
    }
}
