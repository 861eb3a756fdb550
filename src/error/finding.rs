//! Why a finding cannot be acknowledged.

use pgrx::PgSqlErrorCode;

#[derive(Debug, thiserror::Error)]
pub enum FindingError {
    #[error("there is no finding {finding}")]
    Missing { finding: i64 },
    #[error("finding {finding} was acknowledged by {by}")]
    Acknowledged { finding: i64, by: String },
    #[error("finding {finding} is resolved: a later pass did not find it any more")]
    Resolved { finding: i64 },
}

impl FindingError {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            FindingError::Missing { .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            FindingError::Acknowledged { .. } | FindingError::Resolved { .. } => {
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
        }
    }

    pub fn hint(&self) -> String {
        match self {
            FindingError::Missing { .. } => {
                "SELECT * FROM findings() lists them, with their numbers."
            }
            _ => {
                "SELECT * FROM findings() WHERE state = 'open' lists those that wait for somebody."
            }
        }
        .to_owned()
    }
}
