//! An error of another process, on its way to whoever waits for it.

use crate::pg::subtransaction::Failure;
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    sqlstate: i32,
    pub message: String,
    pub hint: Option<String>,
}

impl Refusal {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        PgSqlErrorCode::from(self.sqlstate)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal {
            sqlstate: failure.sqlstate as i32,
            message: failure.message,
            hint: failure.hint,
        }
    }
}
