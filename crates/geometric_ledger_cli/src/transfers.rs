//! Recorded transfers: asked for, looked up, and listed in the statement of an account.

use crate::accounts::parse_key;
use crate::key::{hex, unhex};
use crate::look::complain;
use crate::output::{Failure, parse_time, say, time};
use crate::write::open;
use clap::Args;
use geometric_ledger::{
    Done, Key, NewTransfer, Options, PendingState, Reader, Refusal, StatementQuery, TransferId,
    TransferKind, TransferRecord,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What every recorded transfer may have.
#[derive(Args)]
pub struct Common {
    /// 32 hexadecimal digits. A transfer that is sent again with the same id is not done again; without an
    /// id, each is a new one
    #[arg(long, value_parser = parse_id)]
    id: Option<TransferId>,
    /// The application's own bytes, 48 hexadecimal digits
    #[arg(long, value_parser = crate::accounts::parse_data)]
    reference: Option<[u8; 24]>,
    /// A JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(skip)]
pub struct Record {
    /// Who pays, 64 hexadecimal digits
    #[arg(value_parser = parse_key)]
    debit: Key,
    /// Who gets, 64 hexadecimal digits
    #[arg(value_parser = parse_key)]
    credit: Key,
    amount: u128,
    /// The currency, as both accounts have it
    #[arg(long, default_value_t = 0)]
    code: u32,
    /// The amount leaves the payer and waits for `post` or `void`
    #[arg(long)]
    pending: bool,
    /// A pending amount goes back to its payer after so many seconds
    #[arg(long, value_name = "SECONDS", requires = "pending")]
    timeout: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[group(skip)]
pub struct Post {
    /// The pending transfer, 32 hexadecimal digits
    #[arg(value_parser = parse_id)]
    pending: TransferId,
    /// A part of what is pending; the rest goes back to the payer
    #[arg(long, value_parser = clap::value_parser!(u128))]
    amount: Option<u128>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[group(skip)]
pub struct Void {
    /// The pending transfer, 32 hexadecimal digits
    #[arg(value_parser = parse_id)]
    pending: TransferId,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[group(skip)]
pub struct Submit {
    /// A JSON object a line, or - for standard input: id, debit, credit, amount, and if wanted code, reference,
    /// linked, pending, timeout; or id and post (with amount for a part), or id and void
    file: PathBuf,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(skip)]
pub struct Statement {
    /// 64 hexadecimal digits
    #[arg(value_parser = parse_key)]
    account: Key,
    /// None from before this time: 2026-01-31, 2026-01-31T12:00:00Z, or microseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    from: Option<i64>,
    /// None from this time on
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    until: Option<i64>,
    /// Goes on behind the entry of this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Entries at the most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// The newest entry comes first
    #[arg(long)]
    newest_first: bool,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn parse_id(text: &str) -> Result<TransferId, String> {
    let id = unhex(text).and_then(|bytes| bytes.try_into().ok());
    id.ok_or_else(|| "a transfer's id is 32 hexadecimal digits".to_owned())
}

pub fn record(path: &Path, options: Options, record: &Record) -> Result<ExitCode, Failure> {
    let id = record.common.id()?;
    let mut new = NewTransfer::new(id, record.debit, record.credit, record.amount);
    if record.pending {
        new = new.pending(record.timeout.map(Duration::from_secs));
    }
    one(path, options, new.code(record.code), &record.common)
}

pub fn post(path: &Path, options: Options, post: &Post) -> Result<ExitCode, Failure> {
    let id = post.common.id()?;
    let new = match post.amount {
        Some(0) => return Err(Failure::new("nothing is not posted: `void` gives all back")),
        Some(amount) => NewTransfer::post_part(id, post.pending, amount),
        None => NewTransfer::post(id, post.pending),
    };
    one(path, options, new, &post.common)
}

pub fn void(path: &Path, options: Options, void: &Void) -> Result<ExitCode, Failure> {
    let new = NewTransfer::void(void.common.id()?, void.pending);
    one(path, options, new, &void.common)
}

impl Common {
    fn id(&self) -> Result<TransferId, Failure> {
        self.id.map_or_else(crate::write::random_id, Ok)
    }
}

fn one(
    path: &Path,
    options: Options,
    new: NewTransfer,
    common: &Common,
) -> Result<ExitCode, Failure> {
    let new = new.reference(common.reference.unwrap_or_default());
    create(path, options, &[new], common.json)
}

/// A transfer as a line of a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Needed, so that a file that is sent again pays nothing twice.
    id: String,
    debit: Option<String>,
    credit: Option<String>,
    amount: Option<Amount>,
    code: Option<u32>,
    reference: Option<String>,
    #[serde(default)]
    linked: bool,
    #[serde(default)]
    pending: bool,
    timeout: Option<u64>,
    post: Option<String>,
    void: Option<String>,
}

/// JSON's numbers are too short for some amounts, which are text then.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(u64),
    Text(String),
}

impl Amount {
    fn value(&self) -> Result<u128, String> {
        match self {
            Amount::Number(number) => Ok((*number).into()),
            Amount::Text(text) => text.parse().map_err(|_| format!("amount is {text:?}")),
        }
    }
}

impl Line {
    fn transfer(&self) -> Result<NewTransfer, String> {
        let id = parse_id(&self.id)?;
        let mut new = match (&self.post, &self.void) {
            (None, None) => self.direct(id)?,
            (Some(_), Some(_)) => return Err("there are both post and void".into()),
            (post, void) => self.ending(id, post.as_deref(), void.as_deref())?,
        };
        if let Some(reference) = &self.reference {
            new = new.reference(crate::accounts::parse_data(reference)?);
        }
        Ok(if self.linked { new.linked() } else { new })
    }

    fn direct(&self, id: TransferId) -> Result<NewTransfer, String> {
        let key = |name: &str, text: &Option<String>| {
            let text = text.as_ref().ok_or(format!("there is no {name}"))?;
            parse_key(text).map_err(|error| format!("{name}: {error}"))
        };
        let (debit, credit) = (key("debit", &self.debit)?, key("credit", &self.credit)?);
        let amount = self.amount.as_ref().ok_or("there is no amount")?.value()?;
        let new = NewTransfer::new(id, debit, credit, amount).code(self.code.unwrap_or(0));
        match (self.pending, self.timeout) {
            (false, Some(_)) => Err("timeout is for what is pending".into()),
            (false, None) => Ok(new),
            (true, timeout) => Ok(new.pending(timeout.map(Duration::from_secs))),
        }
    }

    fn ending(
        &self,
        id: TransferId,
        post: Option<&str>,
        void: Option<&str>,
    ) -> Result<NewTransfer, String> {
        let named = self.debit.is_some() || self.credit.is_some() || self.code.is_some();
        if named || self.pending || self.timeout.is_some() {
            return Err(
                "what posts or voids another has its accounts, code and time from it".into(),
            );
        }
        let amount = self.amount.as_ref().map(Amount::value).transpose()?;
        match (post, void, amount) {
            (Some(post), _, Some(amount)) if amount > 0 => {
                Ok(NewTransfer::post_part(id, parse_id(post)?, amount))
            }
            (Some(post), _, None) => Ok(NewTransfer::post(id, parse_id(post)?)),
            (Some(_), _, Some(_)) => Err("nothing is not posted: void gives all back".into()),
            (None, _, Some(_)) => Err("what voids another has its amount from it".into()),
            (None, void, None) => Ok(NewTransfer::void(id, parse_id(void.unwrap_or_default())?)),
        }
    }
}

pub fn submit(path: &Path, options: Options, submit: &Submit) -> Result<ExitCode, Failure> {
    let name = submit.file.display();
    let mut text = String::new();
    let read = match submit.file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text),
        false => std::fs::File::open(&submit.file).and_then(|mut it| it.read_to_string(&mut text)),
    };
    read.map_err(|error| Failure::new(format!("{name}: {error}")))?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let transfers = lines.map(|(number, line)| {
        let transfer = serde_json::from_str::<Line>(line)
            .map_err(|error| error.to_string())
            .and_then(|line| line.transfer());
        transfer.map_err(|what| Failure::new(format!("{name}, line {}: {what}", number + 1)))
    });
    let transfers = transfers.collect::<Result<Vec<_>, _>>()?;
    create(path, options, &transfers, submit.json)
}

/// Does transfers in one batch, and says what became of each.
fn create(
    path: &Path,
    options: Options,
    transfers: &[NewTransfer],
    json: bool,
) -> Result<ExitCode, Failure> {
    let ledger = open(path, options)?;
    let results = ledger.create_transfers(transfers)?;
    ledger.close()?;
    for (new, result) in transfers.iter().zip(&results) {
        outcome(&new.id, result, json)?;
    }
    Ok(match results.iter().all(Result::is_ok) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn outcome(id: &TransferId, result: &Result<Done, Refusal>, json: bool) -> Result<(), Failure> {
    let id = hex(id);
    match (result, json) {
        (Ok(done), true) => {
            let outcome = if done.repeated { "repeated" } else { "done" };
            say!(
                "{}",
                json!({"id": id, "outcome": outcome, "batch": done.sequence})
            )
        }
        (Err(refusal), true) => {
            let reason = refusal.to_string();
            say!(
                "{}",
                json!({"id": id, "outcome": "refused", "reason": reason})
            )
        }
        (Ok(done), false) if done.repeated => {
            say!("transfer {id} was done before, in batch {}", done.sequence)
        }
        (Ok(done), false) => say!("transfer {id} done in batch {}", done.sequence),
        (Err(refusal), false) => say!("transfer {id} refused: {refusal}"),
    }
}

pub fn lookup(mut ledger: Reader, ids: &[TransferId], json: bool) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    let mut is_first = true;
    for (id, record) in ids.iter().zip(ledger.transfers(ids)?) {
        let Some(record) = record else {
            complain(&format!("transfer {} is not there", hex(id)));
            code = ExitCode::FAILURE;
            continue;
        };
        if json {
            say!("{}", to_json(&record))?;
            continue;
        }
        if !std::mem::take(&mut is_first) {
            say!("")?;
        }
        show(&record)?;
    }
    Ok(code)
}

fn show(record: &TransferRecord) -> Result<(), Failure> {
    say!("transfer  {}", hex(&record.id))?;
    say!("debit     {}", hex(&record.debit))?;
    say!("credit    {}", hex(&record.credit))?;
    say!("amount    {}", record.amount)?;
    say!("code      {}", record.code)?;
    say!("reference {}", hex(&record.reference))?;
    say!("kind      {}", kind(&record.kind))?;
    let when = record
        .time
        .map_or("at a time that is not kept".into(), time);
    say!("done      batch {}, {when}", record.sequence)
}

fn kind(kind: &TransferKind) -> String {
    match kind {
        TransferKind::Direct => "direct".into(),
        TransferKind::Post { pending } => format!("posts {}", hex(pending)),
        TransferKind::Void { pending } => format!("voids {}", hex(pending)),
        TransferKind::Pending(PendingState::Open { expires: None }) => "pending".into(),
        TransferKind::Pending(PendingState::Open { expires: Some(at) }) => {
            format!("pending until {}", time(*at))
        }
        TransferKind::Pending(PendingState::Posted { by }) => {
            format!("pending, posted by {}", hex(by))
        }
        TransferKind::Pending(PendingState::Voided { by }) => {
            format!("pending, voided by {}", hex(by))
        }
        TransferKind::Pending(PendingState::Expired) => "pending, and its time is over".into(),
        other => format!("{other:?}"),
    }
}

fn to_json(record: &TransferRecord) -> Value {
    let (kind, state, other, expires) = match &record.kind {
        TransferKind::Direct => ("direct", None, None, None),
        TransferKind::Post { pending } => ("post", None, Some(pending), None),
        TransferKind::Void { pending } => ("void", None, Some(pending), None),
        TransferKind::Pending(state) => match state {
            PendingState::Open { expires } => ("pending", Some("open"), None, *expires),
            PendingState::Posted { by } => ("pending", Some("posted"), Some(by), None),
            PendingState::Voided { by } => ("pending", Some("voided"), Some(by), None),
            PendingState::Expired => ("pending", Some("expired"), None, None),
            _ => ("pending", None, None, None),
        },
        _ => ("unknown", None, None, None),
    };
    json!({
        "id": hex(&record.id),
        "debit": hex(&record.debit),
        "credit": hex(&record.credit),
        "amount": record.amount.to_string(),
        "code": record.code,
        "reference": hex(&record.reference),
        "kind": kind,
        "state": state,
        "other": other.map(|id| hex(id)),
        "expires": expires.map(time),
        "batch": record.sequence,
        "time": record.time.map(time),
    })
}

pub fn statement(mut ledger: Reader, asked: &Statement) -> Result<ExitCode, Failure> {
    let query = StatementQuery {
        from: asked.from,
        until: asked.until,
        after: asked.after,
        limit: asked.limit.into(),
        newest_first: asked.newest_first,
    };
    let (page, reserved) = ledger.statement(&asked.account, &query)?;
    for entry in &page.entries {
        let (when, id) = (time(entry.time), hex(&entry.transfer));
        match asked.json {
            true => say!(
                "{}",
                json!({
                    "number": entry.number,
                    "time": when,
                    "change": entry.change.to_string(),
                    "balance": entry.balance.to_string(),
                    "transfer": id,
                })
            )?,
            false => say!(
                "{}  {when}  change {:+}  balance {}  transfer {id}",
                entry.number,
                entry.change,
                entry.balance
            )?,
        }
    }
    if !asked.json {
        if page.entries.is_empty() {
            say!("no recorded transfer changed the account in this time")?;
        }
        if reserved > 0 {
            say!("{reserved} are pending")?;
        }
        if let Some(next) = page.next {
            say!("there is more: --after {next}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
