//! Continuous verification: that it goes on, and that it has found nothing that nobody has looked at.

use super::{Check, State, check};
use crate::catalog::logs;
use crate::error::literal;
use crate::session::{Session, WITHHELD};
use crate::verify::recorded;

/// A log is overdue so long after twice its interval: seconds.
const GRACE: f64 = 60.0;

/// How the verification of a log stands.
struct Standing {
    /// In seconds; `None` if it is not verified.
    every: Option<f64>,
    /// Since the last full pass ended, or the log was made, in seconds.
    since: f64,
    is_first: bool,
    problem: Option<String>,
    left_out: i64,
}

fn standing(session: &Session, log_id: i32) -> Option<Standing> {
    session.fresh_one(
        "SELECT EXTRACT(epoch FROM l.verify_interval)::pg_catalog.float8,
                EXTRACT(epoch FROM pg_catalog.clock_timestamp() - COALESCE(v.ended_at, l.created_at))::pg_catalog.float8,
                v.ended_at IS NULL, v.problem, COALESCE(v.left_out, 0)
           FROM @extschema@.verification_logs l
           LEFT JOIN @extschema@.merkle_verification v ON v.log_id = l.log_id WHERE l.log_id = $1",
        &[log_id.into()],
        |row| Standing {
            every: row.get(0),
            since: row.required(1),
            is_first: row.required(2),
            problem: row.get(3),
            left_out: row.required(4),
        },
    )
}

/// That a full pass ended not too long ago.
pub fn overdue(session: &Session, state: &State) -> Check {
    let name = Some(state.name.as_str());
    let quoted = literal(&state.name);
    let Some(standing) = standing(session, state.id) else {
        return check("verification", name, true, "the log is gone", "");
    };
    let ago = duration(standing.since);
    let last = match standing.is_first {
        true => format!("no full pass has ended since the log was made {ago} ago"),
        false => format!("the last full pass ended {ago} ago"),
    };
    let Some(every) = standing.every else {
        let detail = format!("the log has no verify_interval; {last}");
        return check("verification", name, true, detail, "");
    };
    let is_late = standing.since > 2.0 * every + GRACE;
    let problem = standing
        .problem
        .map(|why| match logs::by_id(session, state.id) {
            Some(log) => session.message_for_caller(&log, &why),
            None => WITHHELD.to_owned(),
        });
    let detail = match &problem {
        Some(why) => format!("{last}; it does not go on: {why}"),
        None => last,
    };
    let mend = format!(
        "the background worker verifies while merkle_log.verify_rate is not 0, as many rows a second: raise it where the log is too large for its verify_interval; where verify_log({quoted}) is run otherwise, SELECT alter_log({quoted}, verify_interval => '0')"
    );
    check(
        "verification",
        name,
        !is_late && problem.is_none(),
        detail,
        mend,
    )
}

/// That nothing was found that nobody has looked at.
pub fn found(session: &Session, state: &State) -> Check {
    let kinds = recorded::open_by_kind(session, state.id);
    let open: i64 = kinds.iter().map(|(_, count)| count).sum();
    let named: Vec<String> = kinds
        .iter()
        .map(|(kind, n)| format!("{n} {kind}"))
        .collect();
    let left_out = standing(session, state.id).map_or(0, |s| s.left_out);
    let more = match left_out {
        0 => String::new(),
        n => format!("; {n} more were found and not recorded"),
    };
    let detail = match open {
        0 => format!("no finding is open{more}"),
        1 => format!("1 finding is open: {}{more}", named.join(", ")),
        n => format!("{n} findings are open: {}{more}", named.join(", ")),
    };
    let quoted = literal(&state.name);
    let mend = format!(
        "SELECT * FROM findings({quoted}) WHERE state = 'open' names them; what was mended is resolved by the next pass, and acknowledge_finding(finding, reason) says that somebody has looked at one"
    );
    let name = Some(state.name.as_str());
    check("findings", name, open == 0 && left_out == 0, detail, mend)
}

/// Seconds in words.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}
