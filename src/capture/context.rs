//! What an entry says about its change beside who made it: the context that the application has set for its transaction
//! (`merkle_log.context`), and the text of the statement.
//!
//! Both are the writer's word, as `application_name` is. They are in leaf data and nowhere else, so they are recorded
//! where leaf data are kept, and destroyed with these.

use super::gather::Origin;
use crate::catalog::sources::Source;
use crate::error::Error;
use crate::pg::{statement, xact};
use crate::settings;
use std::cell::RefCell;
use std::rc::Rc;

/// Bytes of a statement that are recorded.
const LONGEST_STATEMENT: usize = 2048;

thread_local! {
    /// The context that was found to be valid last.
    static VALID: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
}

/// What the writer of a change says about it.
#[derive(Default)]
pub struct Said {
    context: Option<Rc<str>>,
    statement: Option<Text>,
}

impl Said {
    /// Of the change that is captured now; nothing where its entry's leaf data will not be `kept`.
    ///
    /// # Errors
    /// If what is set as a context is none.
    pub fn now(source: &Source, kept: bool) -> Result<Said, Error> {
        if !kept {
            return Ok(Said::default());
        }
        Ok(Said {
            context: current()?,
            statement: match source.record_statement {
                true => statement(),
                false => None,
            },
        })
    }

    pub fn leaf_origin<'a>(&'a self, origin: &'a Origin) -> leaf_format::Origin<'a> {
        leaf_format::Origin {
            transaction: xact::id(),
            user: &origin.user,
            role: Some(&origin.role),
            application: &origin.application,
            at: origin.at,
            said: self.context.as_deref(),
            statement: self.statement.as_ref().map(|s| s.text.as_str()),
            statement_bytes: self.statement.as_ref().and_then(|s| s.whole),
        }
    }
}

/// The context of the change that is captured now.
///
/// # Errors
/// If it is none. The setting is checked when it is set, but for what was set in a session before it loaded this library.
fn current() -> Result<Option<Rc<str>>, Error> {
    let Some(set) = settings::context() else {
        return Ok(None);
    };
    let text = set.to_string_lossy();
    if text.is_empty() {
        return Ok(None);
    }
    let known = VALID.with_borrow(|valid| valid.clone().filter(|valid| **valid == *text));
    if known.is_some() {
        return Ok(known);
    }
    settings::context::check(&text).map_err(|problem| Error::Context { problem })?;
    let valid: Rc<str> = text.into();
    VALID.set(Some(valid.clone()));
    Ok(Some(valid))
}

/// A statement, or its beginning.
pub struct Text {
    pub text: String,
    /// Bytes of the whole, where it was cut.
    pub whole: Option<u64>,
}

/// The text of the statement that the client has sent and that is running; `None` where none is, as in a process that
/// applies replication.
pub fn statement() -> Option<Text> {
    statement::running(|bytes| {
        let whole = bytes.len();
        let start = &bytes[..whole.min(LONGEST_STATEMENT)];
        // What the server has taken is UTF-8, and may be cut in the middle of a character.
        let text = match std::str::from_utf8(start) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(&start[..e.valid_up_to()]).unwrap_or_default(),
        };
        Text {
            text: text.to_owned(),
            whole: (text.len() < whole).then_some(whole as u64),
        }
    })
}
