//! What is kept of entries beside their hashes: salts and leaf data (`merkle_leaf_data`), and the
//! statements that made them (`merkle_statement`).

use crate::catalog::logs::Log;
use crate::encode::time;
use crate::error::Error;
use crate::pg::alloc;
use crate::pg::index::{Direction, Key};
use crate::pg::memory::Scratch;
use crate::pg::spi::{Row, Snapshot};
use crate::pg::xact;
use crate::session::Session;
use leaf_format::{Context, DecodedOrigin, Encoder, Kind, Leaf, Origin, Value};
use merkle_tree::{Hash, leaf_hash};
use pgrx::datum::DatumWithOid;
use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

/// The most bytes that are kept of an entry. A dump writes each byte as two digits, and no row of a dump has more
/// than 1 GB.
pub const LONGEST: usize = 500 << 20;
/// Characters of a key that an error shows.
const SHOWN: usize = 100;
/// How many times over the leaf data are in memory while they are taken apart.
const COPIES: usize = 6;

/// The leaf hash of leaf data, or of their long form.
pub fn hash(leaf_data: &[u8]) -> Hash {
    leaf_hash(&leaf_format::capped(leaf_data).unwrap_or(Cow::Borrowed(leaf_data)))
}

/// The end of the longest run of entries from `from` on, up to `to`, whose kept leaf data have no more than `bytes`
/// in all; at least one entry.
pub fn within(session: &Session, log: &Log, from: i64, to: i64, bytes: i64) -> i64 {
    let first_too_many = session.read_one(
        "SELECT pg_catalog.min(s.leaf_index) FROM (
             SELECT d.leaf_index, pg_catalog.sum(pg_catalog.octet_length(d.leaf_data)) OVER (ORDER BY d.leaf_index) AS bytes
               FROM @extschema@.merkle_leaf_data d
              WHERE d.log_id = $1 AND d.leaf_index >= $2 AND d.leaf_index < $3) s
          WHERE s.bytes > $4",
        &[log.id.into(), from.into(), to.into(), bytes.into()],
        |row| row.get::<i64>(0),
    );
    first_too_many.flatten().map_or(to, |at| at.max(from + 1))
}

/// The leaf data, as they were hashed, that are kept of the entries `from .. to`.
pub fn kept(session: &Session, log: &Log, from: i64, to: i64) -> HashMap<i64, Vec<u8>> {
    let rows = session.read(
        "SELECT d.leaf_index, d.leaf_data FROM @extschema@.merkle_leaf_data d
          WHERE d.log_id = $1 AND d.leaf_index >= $2 AND d.leaf_index < $3 AND d.leaf_data IS NOT NULL",
        &[log.id.into(), from.into(), to.into()],
        |row| {
            let stored: &[u8] = row.required(1);
            let hashed = leaf_format::capped(stored).unwrap_or(Cow::Borrowed(stored));
            (row.required(0), hashed.into_owned())
        },
    );
    rows.into_iter().collect()
}

/// Writes the leaf data of a row: the long form where they are kept, since the columns are then to be had again.
///
/// # Errors
/// If a value has no encoding, or the row is too long to be kept. `row`: names of log and table, and the key.
pub fn encode(
    encoder: &Encoder,
    values: &[Value],
    context: &Context,
    keep: bool,
    row: impl FnOnce() -> (String, String, String),
    leaf_data: &mut Vec<u8>,
) -> Result<(), Error> {
    let encoded = match keep {
        true => encoder.encode_in_full(values, context, LONGEST, leaf_data),
        false => encoder.encode(values, context, leaf_data),
    };
    encoded.map_err(|problem| {
        let (log, table, key) = row();
        match problem {
            leaf_format::Error::TooLong { limit } => Error::RowTooLong {
                log,
                table,
                key: key.chars().take(SHOWN).collect(),
                limit,
            },
            problem => Error::Encode {
                log,
                table,
                key,
                problem: problem.to_string(),
            },
        }
    })
}

/// The leaf data of an entry that a log makes itself, with who had it made. `subject`: what stands in the place of the
/// source's name.
pub fn of_log(
    session: &Session,
    log: &Log,
    subject: &str,
    kind: Kind,
    columns: Vec<(&str, Value)>,
) -> Result<Vec<u8>, Error> {
    let (user, role) = (xact::session_user(), xact::role_called(session.caller()));
    let application = xact::application_name(|name| name.into_owned());
    let context = Context {
        origin: Some(Origin {
            transaction: xact::id(),
            user: &user,
            role: Some(&role),
            application: &application,
            at: time::unix_micros(xact::statement_start()),
            ..Origin::default()
        }),
        salt: None,
    };
    let (names, values): (Vec<&str>, Vec<Value>) = columns.into_iter().unzip();
    let mut leaf_data = Vec::new();
    Encoder::new(subject, kind, &names)
        .and_then(|e| e.encode_in_full(&values, &context, LONGEST, &mut leaf_data))
        .map_err(|e| Error::Damaged {
            log: log.name.clone(),
            problem: format!("an entry of kind {} cannot be encoded: {e}", kind.as_str()),
        })?;
    Ok(leaf_data)
}

/// Leaf data that are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub hash: Hash,
    /// What was hashed.
    pub leaf_data: Vec<u8>,
    /// What is stored is the long form.
    pub is_long: bool,
    /// Who made the change, if it was captured.
    pub origin: Option<DecodedOrigin>,
}

impl Kept {
    fn new(stored: &[u8]) -> Kept {
        let leaf_data = leaf_format::capped(stored).unwrap_or(Cow::Borrowed(stored));
        Kept {
            hash: leaf_hash(&leaf_data),
            is_long: leaf_data.len() < stored.len(),
            origin: DecodedOrigin::of(&leaf_data),
            leaf_data: leaf_data.into_owned(),
        }
    }

    /// Only the digest of the columns is there.
    pub fn is_digest(&self) -> bool {
        !self.is_long && leaf_format::is_digest(&self.leaf_data)
    }
}

/// A statement that trigger capture saw, and the run of entries it made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub source_id: i32,
    pub kind: String,
    pub transaction: u64,
    pub user: String,
    /// `None` where the version that captured it did not record the role.
    pub role: Option<String>,
    pub application: String,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
}

/// What one entry says beside its row.
#[derive(Clone, Debug, Default)]
pub struct Annex {
    pub statement: Option<Rc<Statement>>,
    pub salt: Option<Vec<u8>>,
    pub leaf_data: Option<Kept>,
    /// Of a salt that was destroyed, its part of the batch's digest.
    pub erased_salt: Option<Vec<u8>>,
}

impl Annex {
    /// Who made the change. Context and text of the statement are in no other place than the leaf data that are kept.
    pub fn origin(&self) -> Option<Origin<'_>> {
        let kept = self.leaf_data.as_ref().and_then(|k| k.origin.as_ref());
        self.statement.as_ref().map(|s| Origin {
            transaction: s.transaction,
            user: &s.user,
            role: s.role.as_deref(),
            application: &s.application,
            at: s.at,
            said: kept.and_then(|k| k.said.as_deref()),
            statement: kept.and_then(|k| k.statement.as_deref()),
            statement_bytes: kept.and_then(|k| k.statement_bytes),
        })
    }

    /// What happened to the row; `None` if the statement's kind is none that exists.
    pub fn kind(&self) -> Option<Kind> {
        match &self.statement {
            None => Some(Kind::Insert),
            Some(statement) => Kind::try_from(statement.kind.as_str()).ok(),
        }
    }
}

const RUN: &str = "t.from_leaf_index, t.entries, t.source_id, t.kind, t.transaction_id::pg_catalog.text,
    t.user_name, t.application_name, LEAST(GREATEST(EXTRACT(epoch FROM t.statement_at) * 1000000, -9223372036854775808), 9223372036854775807)::pg_catalog.int8,
    t.role_name";

fn run(row: &Row) -> (i64, i64, Rc<Statement>) {
    let statement = Statement {
        source_id: row.required(2),
        kind: row.required(3),
        transaction: row.required::<String>(4).parse().unwrap_or(0),
        user: row.required(5),
        role: row.get(8),
        application: row.required(6),
        at: row.required(7),
    };
    let from: i64 = row.required(0);
    (
        from,
        from.saturating_add(row.required::<i32>(1).into()),
        Rc::new(statement),
    )
}

/// The runs that begin among the entries `from .. to`: first entry, number of entries, statement.
pub fn runs(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    from: i64,
    to: i64,
) -> Vec<(i64, i64, Rc<Statement>)> {
    let sql = format!(
        "SELECT {RUN} FROM @extschema@.merkle_statement t
          WHERE t.log_id = $1 AND t.from_leaf_index >= $2 AND t.from_leaf_index < $3"
    );
    let args = [log.id.into(), from.into(), to.into()];
    let runs = session.query(snapshot, &sql, &args, run);
    let counted = |(first, end, statement)| (first, end - first, statement);
    runs.into_iter().map(counted).collect()
}

/// What the entries `from .. to` say beside their rows, as the calling statement sees it; those that
/// say nothing are left out.
pub fn annexes(session: &Session, log: &Log, from: i64, to: i64) -> HashMap<i64, Annex> {
    let args: [DatumWithOid; 3] = [log.id.into(), from.into(), to.into()];
    let mut scratch = Scratch::new();
    let mut annexes: HashMap<i64, Annex> = session
        .read(
            "SELECT d.leaf_index, d.salt, d.leaf_data, d.erased_salt FROM @extschema@.merkle_leaf_data d
              WHERE d.log_id = $1 AND d.leaf_index >= $2 AND d.leaf_index < $3",
            &args,
            |row| {
                let annex = Annex {
                    statement: None,
                    salt: row.get(1),
                    leaf_data: scratch.reuse(|| row.get(2).map(Kept::new)),
                    erased_salt: row.get(3),
                };
                (row.required(0), annex)
            },
        )
        .into_iter()
        .collect();
    // The run that is under way at `from`, and those that begin after it.
    let runs = session.read(
        &format!(
            "(SELECT {RUN} FROM @extschema@.merkle_statement t
               WHERE t.log_id = $1 AND t.from_leaf_index <= $2 ORDER BY t.from_leaf_index DESC LIMIT 1)
             UNION ALL
             (SELECT {RUN} FROM @extschema@.merkle_statement t
               WHERE t.log_id = $1 AND t.from_leaf_index > $2 AND t.from_leaf_index < $3)"
        ),
        &args,
        run,
    );
    for (first, end, statement) in runs {
        for index in first.max(from)..end.min(to) {
            annexes.entry(index).or_default().statement = Some(statement.clone());
        }
    }
    annexes
}

/// What one entry says beside its row.
pub fn annex(session: &Session, log: &Log, index: i64) -> Annex {
    annexes(session, log, index, index + 1)
        .remove(&index)
        .unwrap_or_default()
}

/// What is kept of an entry, with all columns where they are there; `None` if nothing is, or it is no leaf.
pub fn in_full(session: &Session, snapshot: Snapshot, log: &Log, index: i64) -> Option<Leaf> {
    let leaf = session.query(
        snapshot,
        "SELECT d.leaf_data FROM @extschema@.merkle_leaf_data d WHERE d.log_id = $1 AND d.leaf_index = $2",
        &[log.id.into(), index.into()],
        |row| decoded(row.get::<&[u8]>(0)?),
    );
    leaf.into_iter().next().flatten()
}

/// Hands what is kept of those of the entries `from .. to` that are wanted to `take`, as `in_full` has it, in the order of
/// the log; entries of which nothing is kept are left out.
pub fn each_in_full(
    session: &Session,
    log: &Log,
    from: i64,
    to: i64,
    mut wanted: impl FnMut(i64) -> bool,
    mut take: impl FnMut(i64, Leaf),
) -> Result<(), Error> {
    let keys = [
        Key::int4(1, log.id),
        Key::at_least(2, from),
        Key::at_most(2, to - 1),
    ];
    let mut scratch = Scratch::new();
    let mut kept = session.index(c"merkle_leaf_data", c"merkle_leaf_data_pkey")?;
    kept.scan(Snapshot::Statement, &keys, Direction::Forward, |row| {
        let index: i64 = row.required(1);
        // What is long is read into the server's memory.
        let leaf = wanted(index).then(|| scratch.reuse(|| row.get::<&[u8]>(3).and_then(decoded)));
        if let Some(leaf) = leaf.flatten() {
            take(index, leaf);
        }
        true
    });
    Ok(())
}

fn decoded(leaf_data: &[u8]) -> Option<Leaf> {
    alloc::reserve(
        &mut Vec::<u8>::new(),
        leaf_data.len().saturating_mul(COPIES),
    );
    Leaf::decode_in_full(leaf_data).ok()
}
