//! Acknowledged findings against what is on record: who marks a finding himself hides it from nobody.

use super::Verification;
use super::finding::{Finding, Kind};
use crate::administration::replay::{Acknowledgement, Replay};
use crate::session::Session;

impl Verification {
    pub(super) fn acknowledged(&self, session: &Session, replay: &Replay) -> Vec<Finding> {
        let marked: Vec<(i64, Acknowledgement)> = session.read(
            "SELECT f.finding_id, f.identity, COALESCE(f.acknowledged_by, ''), COALESCE(f.reason, ''),
                    (1000000 * EXTRACT(epoch FROM f.acknowledged_at))::pg_catalog.int8
               FROM @extschema@.merkle_finding f WHERE f.log_id = $1 AND f.acknowledged_at IS NOT NULL",
            &[self.log.id.into()],
            |row| {
                let acknowledgement = Acknowledgement {
                    log_id: self.log.id.into(),
                    identity: hex(&row.required::<Vec<u8>>(1)),
                    by: row.required(2),
                    reason: row.required(3),
                    at: row.required(4),
                };
                (row.required(0), acknowledgement)
            },
        );
        let is_unrecorded =
            |(id, marked): &(i64, Acknowledgement)| replay.acknowledged(*id) != Some(marked);
        let finding = |(id, _)| {
            let detail = format!(
                "finding {id} of merkle_finding is acknowledged otherwise than the administration log says"
            );
            Finding::of_log(Kind::ConfigurationAltered, None, detail)
        };
        marked
            .into_iter()
            .filter(is_unrecorded)
            .map(finding)
            .collect()
    }
}

/// Bytes as the administration log has them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
