//! Commands that read. Each works on a ledger that a process has open, and on one that nobody has.

use crate::accounts::{flags, to_json};
use crate::key::hex;
use crate::output::{Failure, bar, follows, say, time};
use crate::stop;
use geometric_ledger::{
    Account, Error, Key, LedgerStats, Options, Publisher, Reader, Recovery, SnapshotInfo,
};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Opens a ledger for reading.
pub fn open(path: &Path, options: Options) -> Result<Reader, Failure> {
    there(path)?;
    Ok(Reader::open(path, options)?)
}

/// Says what a path is that is no ledger.
pub fn there(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::new(format!(
            "there is no ledger at {shown}; `geometric-ledger create {shown}` makes one"
        ))),
        Err(error) => Err(Failure::new(format!("{shown}: {error}"))),
        Ok(found) if !found.is_dir() => Err(Failure::new(format!(
            "{shown} is no ledger, which would be a directory"
        ))),
        Ok(_) => Ok(()),
    }
}

pub fn get(
    mut ledger: Reader,
    keys: &[Key],
    batch: Option<u64>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (sequence, accounts) = ledger.get_many(keys, batch)?;
    let mut code = ExitCode::SUCCESS;
    for (number, (key, account)) in keys.iter().zip(&accounts).enumerate() {
        let Some(account) = account else {
            complain(&format!(
                "account {} is not there after batch {sequence}",
                hex(key)
            ));
            code = ExitCode::FAILURE;
            continue;
        };
        if json {
            let mut value = to_json(key, account);
            value["batch"] = sequence.into();
            say!("{value}")?;
            continue;
        }
        if number > 0 {
            say!("")?;
        }
        show(key, account)?;
        say!("as of     batch {sequence}")?;
    }
    Ok(code)
}

fn show(key: &Key, account: &Account) -> Result<(), Failure> {
    say!("account   {}", hex(key))?;
    say!("balance   {}", account.balance)?;
    say!("nonce     {}", account.nonce)?;
    say!("flags     {}", flags(account.flags))?;
    say!("code      {}", account.code)?;
    say!("data      {}", hex(&account.data))
}

/// Says on standard error what is not there.
pub fn complain(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "geometric-ledger: {what}");
}

pub fn history(
    mut ledger: Reader,
    key: &Key,
    limit: usize,
    json: bool,
) -> Result<ExitCode, Failure> {
    let history = ledger.account_history(key, limit)?;
    if history.states.is_empty() {
        complain(&format!("nothing is known of account {}", hex(key)));
        return Ok(ExitCode::FAILURE);
    }
    for state in &history.states {
        let batch = state.sequence;
        let when = state.time.map_or("its time is not kept".into(), time);
        match (&state.account, json) {
            (None, false) => say!("batch {batch}  {when}  deleted")?,
            (Some(account), false) => say!(
                "batch {batch}  {when}  balance {}  nonce {}  flags {}  code {}  data {}",
                account.balance,
                account.nonce,
                flags(account.flags),
                account.code,
                hex(&account.data)
            )?,
            (account, true) => {
                let account = account.as_ref().map(|account| to_json(key, account));
                say!(
                    "{}",
                    json!({"batch": batch, "time": state.time.map(time), "account": account})
                )?;
            }
        }
    }
    if !history.whole && !json {
        say!("earlier states are not kept, or beyond --limit")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn inspect(mut ledger: Reader) -> Result<(), Failure> {
    let found = ledger.describe()?;
    let info = found.info;
    say!("ledger       {}", hex(&info.id))?;
    say!("format       {}", info.format)?;
    say!("shards       {}", info.shards)?;
    say!("encrypted    {}", if info.encrypted { "yes" } else { "no" })?;
    match (found.process, found.following) {
        (Some(process), true) => {
            say!("open         in process {process}, which follows another ledger")?
        }
        (Some(process), false) => say!("open         in process {process}")?,
        (None, _) => say!("open         in no process")?,
    }
    say!("opened       {} times for writing", info.opened)?;
    say!("checkpoint   after batch {}", info.checkpoint)?;
    say!(
        "history      batches {} to {}",
        found.history.0,
        found.history.1
    )?;
    say!("batches      {}", found.head.sequence)?;
    if found.pruned > 0 {
        let first = found.pruned + 1;
        say!(
            "pruned       batches 1 to {}; proofs are of batches from {first} on",
            found.pruned
        )?;
    }
    say!("root         {}", hex(&found.head.root))?;
    opening(&found.recovery, found.process.is_some())
}

/// What opening the ledger did, or would do.
fn opening(recovery: &Recovery, open: bool) -> Result<(), Failure> {
    match (recovery.clean, open) {
        (true, _) => say!("closed       cleanly the last time")?,
        (false, true) => say!(
            "closed       not; opening did {} batches again from {} bytes of log ({:?})",
            recovery.batches,
            recovery.bytes,
            recovery.duration
        )?,
        (false, false) => say!(
            "closed       not; {} batches, {} bytes of log to be done again ({:?})",
            recovery.batches,
            recovery.bytes,
            recovery.duration
        )?,
    }
    if recovery.superblock_repaired {
        say!("superblock   one of its two copies was damaged; opening for writing repairs it")?;
    }
    if recovery.indexes_rebuilt > 0 {
        let count = recovery.indexes_rebuilt;
        say!("indexes      {count} were missing or damaged, and are made again from the slots")?;
    }
    if recovery.tree_rebuilt {
        say!("tree         its hashes were missing or damaged, and are made again")?;
    }
    Ok(())
}

pub fn stats(stats: &LedgerStats, json: bool) -> Result<(), Failure> {
    let slots = || stats.shards.iter().map(|shard| shard.slots);
    let loads = || stats.shards.iter().map(|shard| shard.load);
    let least = loads().fold(f64::INFINITY, f64::min);
    let most = loads().fold(0.0, f64::max);
    if json {
        return say!(
            "{}",
            json!({
                "accounts": stats.accounts,
                "batches": stats.sequence,
                "first_batch": stats.first_batch,
                "minted": stats.totals.minted.to_string(),
                "burned": stats.totals.burned.to_string(),
                "receipts": stats.receipts,
                "slots_bytes": stats.slots_bytes,
                "index_bytes": stats.index_bytes,
                "wal_bytes": stats.wal_bytes,
                "batches_bytes": stats.batches_bytes,
                "since_checkpoint_bytes": stats.since_checkpoint_bytes,
                "dirty_bytes": stats.dirty_bytes,
                "shards": stats.shards.len(),
                "load_least": least,
                "load_most": most,
            })
        );
    }
    say!("accounts     {}", stats.accounts)?;
    say!("batches      {}", stats.sequence)?;
    if stats.first_batch > 1 {
        say!("pruned       {}", stats.first_batch - 1)?;
    }
    say!("minted       {}", stats.totals.minted)?;
    say!("burned       {}", stats.totals.burned)?;
    say!("receipts     {}", stats.receipts)?;
    say!("slots        {} bytes", stats.slots_bytes)?;
    say!("index        {} bytes", stats.index_bytes)?;
    say!("tree         {} bytes of batches", stats.batches_bytes)?;
    say!(
        "log          {} bytes, of which a crash would replay {}",
        stats.wal_bytes,
        stats.since_checkpoint_bytes
    )?;
    say!(
        "unwritten    {} bytes of memory are not in the files yet",
        stats.dirty_bytes
    )?;
    say!(
        "shards       {}, of {} to {} slots, loaded {least:.2} to {most:.2}",
        stats.shards.len(),
        slots().min().unwrap_or(0),
        slots().max().unwrap_or(0),
    )
}

/// Shows how far something is, and stops it where the program is told to.
fn watch(ledger: &mut Reader) -> Result<indicatif::ProgressBar, Failure> {
    stop::listen()?;
    let progress = bar(0);
    ledger.on_progress(follows(&progress));
    Ok(progress)
}

pub fn verify(mut ledger: Reader) -> Result<ExitCode, Failure> {
    let progress = watch(&mut ledger)?;
    let (count, findings) = ledger.verify()?;
    progress.finish_and_clear();
    for finding in &findings {
        say!("{finding}")?;
    }
    if count > findings.len() as u64 {
        say!("… {count} findings in all")?;
    }
    let head = ledger.describe()?.head;
    if count == 0 {
        say!(
            "{} batches lead to the root {}",
            head.sequence,
            hex(&head.root)
        )?;
    }
    let audited = audit(ledger)?;
    Ok(match count {
        0 => audited,
        _ => ExitCode::FAILURE,
    })
}

pub fn audit(mut ledger: Reader) -> Result<ExitCode, Failure> {
    let progress = watch(&mut ledger)?;
    let audited = ledger.audit();
    progress.finish_and_clear();
    match audited {
        Ok(audit) => {
            let pending = match audit.pending {
                0 => String::new(),
                pending => format!(", and {pending} are pending"),
            };
            say!(
                "{} accounts hold {}{pending}: what was minted and not burned, as of batch {}",
                audit.accounts,
                audit.balances,
                audit.sequence
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Err(
            error @ (Error::Unbalanced { .. }
            | Error::Damaged { .. }
            | Error::DamagedAccount { .. }),
        ) => {
            say!("{error}")?;
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

pub fn snapshot(mut ledger: Reader, file: &Path, since: Option<u64>) -> Result<(), Failure> {
    let progress = watch(&mut ledger)?;
    let info: SnapshotInfo = ledger.snapshot_to(file, since)?;
    progress.finish_and_clear();
    say!("snapshot of batch {} in {}", info.sequence, file.display())
}

pub fn publish(mut ledger: Reader, to: &str, table: &str) -> Result<(), Failure> {
    stop::listen()?;
    let progress = bar(0);
    let mut publisher = Publisher::connect(to, table)?;
    publisher.on_progress(follows(&progress));
    let published = publisher.publish_from(&mut ledger)?;
    progress.finish_and_clear();
    say!("{published} batches published into {table}")
}
