//! What the functions are called on, and how it is judged afterwards: a log of captured rows and one of rows that
//! batches read, made anew for each trial.

use server_tests::*;

/// A writing function with a call of it, what makes the call mean something, and what is true when it was done.
pub struct Call {
    pub function: &'static str,
    pub prepare: &'static str,
    pub sql: &'static str,
    pub done: &'static str,
}

const fn call(
    function: &'static str,
    prepare: &'static str,
    sql: &'static str,
    done: &'static str,
) -> Call {
    Call {
        function,
        prepare,
        sql,
        done,
    }
}

/// In the statements, `#` is the number of the trial.
pub const CALLS: &[Call] = &[
    call(
        "create_log",
        "",
        "SELECT create_log('new#')",
        "SELECT EXISTS (SELECT FROM verification_logs WHERE log_name = 'new#')",
    ),
    call(
        "alter_log",
        "",
        "SELECT alter_log('c#', batch_size => 77)",
        "SELECT batch_size = 77 FROM verification_logs WHERE log_name = 'c#'",
    ),
    call(
        "enable_log",
        "SELECT disable_log('c#')",
        "SELECT enable_log('c#')",
        "SELECT enabled FROM verification_logs WHERE log_name = 'c#'",
    ),
    call(
        "disable_log",
        "",
        "SELECT disable_log('c#')",
        "SELECT NOT enabled FROM verification_logs WHERE log_name = 'c#'",
    ),
    call(
        "pause_log",
        "",
        "SELECT pause_log('c#')",
        "SELECT paused FROM verification_logs WHERE log_name = 'c#'",
    ),
    call(
        "resume_log",
        "SELECT pause_log('c#')",
        "SELECT resume_log('c#')",
        "SELECT NOT paused FROM verification_logs WHERE log_name = 'c#'",
    ),
    call(
        "drop_log",
        "",
        "SELECT drop_log('c#', confirm => true)",
        "SELECT NOT EXISTS (SELECT FROM verification_logs WHERE log_name = 'c#')",
    ),
    call(
        "add_source",
        "",
        "SELECT add_source('c#', 'x#', capture => 'trigger', append_only => true)",
        "SELECT EXISTS (SELECT FROM verification_sources WHERE relation = 'x#'::regclass)",
    ),
    call(
        "alter_source",
        "",
        "SELECT alter_source('c#', 'c#', columns => '{id}', append_only => true)",
        "SELECT append_only FROM verification_sources WHERE relation = 'c#'::regclass",
    ),
    call(
        "remove_source",
        "",
        "SELECT remove_source('c#', 'c#')",
        "SELECT removed_at IS NOT NULL FROM verification_sources WHERE relation = 'c#'::regclass",
    ),
    call(
        "backfill",
        "",
        "SELECT backfill('c#', 'c#')",
        "SELECT backfill IS NOT NULL FROM verification_sources WHERE relation = 'c#'::regclass",
    ),
    call(
        "repair_capture",
        "ALTER TABLE c# DISABLE TRIGGER ALL",
        "SELECT repair_capture('c#', 'c#')",
        "SELECT bool_and(tgenabled = 'A') FROM pg_trigger WHERE tgrelid = 'c#'::regclass",
    ),
    call(
        "process_next_batch",
        "INSERT INTO c# SELECT g, 'more' FROM generate_series(1001, 1200) g; ALTER TABLE c# ADD COLUMN added int DEFAULT 1; UPDATE c# SET note = 'changed' WHERE id > 1100",
        "SELECT entries FROM process_next_batch('c#')",
        "SELECT merkle_size('c#') > 500",
    ),
    call(
        "process_next_batch",
        "INSERT INTO w# (note) SELECT 'more' FROM generate_series(1, 200) g; ALTER TABLE w# ADD COLUMN added int",
        "SELECT entries FROM process_next_batch('w#')",
        "SELECT merkle_size('w#') > 20",
    ),
    call(
        "reconcile",
        "INSERT INTO w# (id, note) VALUES (-1, 'behind'), (-2, 'behind')",
        "SELECT count(*) FROM reconcile('w#')",
        "SELECT EXISTS (SELECT FROM merkle_late_entry JOIN verification_logs USING (log_id) WHERE log_name = 'w#')",
    ),
    call(
        "redact",
        "",
        "SELECT redact('c#', 1, 'asked for')",
        "SELECT salt IS NULL FROM merkle_leaf_data JOIN verification_logs USING (log_id) WHERE log_name = 'c#' AND leaf_index = 1",
    ),
    call(
        "redact_row",
        "UPDATE c# SET note = 'queued' WHERE id = 2",
        "SELECT redact_row('c#', 'c#', '2', 'asked for')",
        "SELECT EXISTS (SELECT FROM merkle_redacted_key JOIN verification_sources USING (source_id) WHERE relation = 'c#'::regclass)",
    ),
    call(
        "redact_row_of",
        "UPDATE c# SET note = 'queued' WHERE id = 2",
        "SELECT redact_row_of('c#', 'c#', 'asked for', 2)",
        "SELECT EXISTS (SELECT FROM merkle_redacted_key JOIN verification_sources USING (source_id) WHERE relation = 'c#'::regclass)",
    ),
    call(
        "accept_checkpoint",
        "SELECT checkpoint('c#')",
        "SELECT accept_checkpoint((SELECT note FROM merkle_log_checkpoints WHERE log_name = 'c#'))",
        "SELECT EXISTS (SELECT FROM merkle_accepted_checkpoint JOIN verification_logs USING (log_id) WHERE log_name = 'c#')",
    ),
    call(
        "acknowledge_finding",
        "INSERT INTO merkle_finding (log_id, identity, kind, found_as, detail, pass, source_table)
         SELECT log_id, '\\x01', 'unlogged', 'unlogged', 'made up', 1, 'public.c#' FROM verification_logs WHERE log_name = 'c#'",
        "SELECT acknowledge_finding((SELECT max(finding) FROM findings('c#')), 'a trial')",
        "SELECT EXISTS (SELECT FROM findings('c#') WHERE state = 'acknowledged')",
    ),
    call(
        "prune_log",
        "",
        "SELECT prune_log('c#', 256)",
        "SELECT pruned_to = 256 FROM verification_logs WHERE log_name = 'c#'",
    ),
    call(
        "seal_range",
        "",
        "SELECT count(*) FROM seal_range('c#')",
        "SELECT EXISTS (SELECT FROM sealed_ranges('c#'))",
    ),
    call(
        "retire_rows",
        "SELECT alter_source('w#', 'w#', store_leaf_data => true);
         INSERT INTO w# (note) SELECT 'kept' FROM generate_series(1, 5); SELECT process_next_batch('w#')",
        "SELECT retire_rows('w#', 'w#', 1000)",
        "SELECT EXISTS (SELECT FROM verification_source_retirements r JOIN verification_sources s USING (source_id)
                          JOIN verification_logs l USING (log_id) WHERE l.log_name = 'w#')",
    ),
];

/// Volatile functions that write no table, or not here: why.
pub const OTHERS: &[(&str, &str)] = &[
    ("add_cosignature", "needs a witness; checkpoints.rs"),
    (
        "adopt_database",
        "refused in a database that is no copy; copies.rs",
    ),
    ("background_worker", "reads shared memory"),
    (
        "checkpoint",
        "signs in a transaction of its own; checkpoints.rs",
    ),
    (
        "capture_change",
        "a trigger: what it writes is written as the writer commits",
    ),
    (
        "capture_truncate",
        "a trigger: what it writes is written as the writer commits",
    ),
    ("coverage_holes", "reads"),
    ("log_counters", "reads shared memory"),
    ("log_lag", "reads"),
    ("merkle_log_health", "reads"),
    ("merkle_log_metrics", "reads"),
    ("merkle_log_warm", "fills the cache"),
    ("node_cache", "reads shared memory"),
    (
        "note_ddl_command",
        "an event trigger: what fails in it is a warning; ddl.rs",
    ),
    (
        "record_ddl",
        "makes event triggers, which every later trial would meet; ddl.rs",
    ),
    ("refuse_change", "a trigger that refuses"),
    ("run_now", "tells the worker"),
    ("running_commands", "reads shared memory"),
    ("run_scheduled_batch", "does what process_next_batch does"),
    ("schedule_log", "calls pg_cron"),
    ("unschedule_log", "calls pg_cron"),
    ("wait_for_inclusion", "reads"),
    ("wait_for_inclusion_of", "reads"),
];

/// Two logs with entries, their sources, and a table that is no source yet.
const MADE: &str = "
    CREATE TABLE c# (id int PRIMARY KEY, note text); CREATE TABLE x# (id int PRIMARY KEY, note text);
    CREATE TABLE w# (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, note text);
    SELECT create_log('c#'), create_log('w#');
    SELECT add_source('c#', 'c#', capture => 'trigger', store_leaf_data => true, salted => true), add_source('w#', 'w#', order_column => 'id');
    INSERT INTO c# SELECT g, 'note' FROM generate_series(1, 270) g; INSERT INTO x# VALUES (1, 'x');
    INSERT INTO w# (note) SELECT 'w' FROM generate_series(1, 20)";

/// Everything that a call may leave behind, but what a batch says of those whom it waited for.
const STATE: &str = "SELECT t FROM (
    SELECT 'log ' || (to_jsonb(l) - '{waiting_for,last_error,last_error_at}'::text[])::text t FROM verification_logs l
    UNION ALL SELECT 'source ' || s::text FROM verification_sources s
    UNION ALL SELECT 'version ' || v::text FROM verification_source_versions v
    UNION ALL SELECT 'column ' || v::text FROM verification_source_columns v
    UNION ALL SELECT 'retirement ' || r::text FROM verification_source_retirements r
    UNION ALL SELECT 'partition ' || p::text FROM verification_source_partitions p
    UNION ALL SELECT 'sealed ' || r::text FROM merkle_sealed_range r
    UNION ALL SELECT 'sealed key ' || k::text FROM merkle_sealed_key k
    UNION ALL SELECT 'entry ' || m::text FROM merkle_log m
    UNION ALL SELECT 'mark ' || m::text FROM merkle_order_index m
    UNION ALL SELECT 'tile ' || m::text FROM merkle_tile m
    UNION ALL SELECT 'head ' || m::text FROM merkle_tree_head m
    UNION ALL SELECT 'leaf ' || m::text FROM merkle_leaf_data m
    UNION ALL SELECT 'statement ' || m::text FROM merkle_statement m
    UNION ALL SELECT 'queued ' || m::text FROM merkle_pending m
    UNION ALL SELECT 'aside ' || m::text FROM merkle_set_aside m
    UNION ALL SELECT 'redacted ' || m::text FROM merkle_redacted_key m
    UNION ALL SELECT 'late ' || m::text FROM merkle_late_entry m
    UNION ALL SELECT 'checkpoint ' || m::text FROM merkle_checkpoint m
    UNION ALL SELECT 'accepted ' || m::text FROM merkle_accepted_checkpoint m
    UNION ALL SELECT 'finding ' || m::text FROM merkle_finding m
    UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal) s ORDER BY t";

/// How rows of the administration log, whose number is 0, begin in `STATE`.
const RECORD: [&str; 5] = [
    "entry (0,",
    "tile (0,",
    "head (0,",
    "leaf (0,",
    "statement (0,",
];

/// A trial of a call: where it is tried, and how things were before.
pub struct Trial<'a> {
    pub call: &'a Call,
    pub number: usize,
    before: Vec<String>,
}

impl<'a> Trial<'a> {
    pub fn begin(admin: &mut Client, call: &'a Call, number: usize) -> Trial<'a> {
        let mut trial = Trial {
            call,
            number,
            before: Vec::new(),
        };
        run(admin, &trial.numbered(MADE));
        for log in ["c#", "w#"] {
            drain(admin, &trial.numbered(log));
        }
        if !call.prepare.is_empty() {
            run(admin, &trial.numbered(call.prepare));
        }
        trial.before = column(admin, STATE);
        assert!(
            !trial.is_done(admin),
            "{}: done before it was called",
            call.sql
        );
        trial
    }

    pub fn numbered(&self, sql: &str) -> String {
        sql.replace('#', &self.number.to_string())
    }

    pub fn sql(&self) -> String {
        self.numbered(self.call.sql)
    }

    fn is_done(&self, admin: &mut Client) -> bool {
        one::<Option<bool>>(admin, &self.numbered(self.call.done)) == Some(true)
    }

    /// That all of it is there or nothing, that the record agrees with the tables, that the source's writers go on,
    /// and that the next call works. `done`: whether the caller was told that it was done, if anything.
    pub fn judge(self, admin: &mut Client, told: Option<bool>, fault: &str) -> bool {
        let at = format!("{} after {fault}", self.sql());
        let done = self.is_done(admin);
        if told == Some(true) {
            assert!(done, "{at}: said to be done and is not");
        }
        let after: Vec<String> = column(admin, STATE);
        let not_in = |other: &[String], t: &&String| !other.contains(t);
        let gone: Vec<_> = self.before.iter().filter(|t| not_in(&after, t)).collect();
        let new: Vec<_> = after.iter().filter(|t| not_in(&self.before, t)).collect();
        // A batch that waits for a writer has put a new version of the columns on record all the same.
        let on_record = |t: &&&String| {
            let version = ["version ", "column "].iter();
            let mut of_record = version.chain(&RECORD).copied();
            self.call.function == "process_next_batch" && of_record.any(|p| t.starts_with(p))
        };
        let same = gone.iter().chain(&new).filter(|t| !on_record(t)).count() == 0;
        assert_eq!(
            same, !done,
            "{at}: half of it is there: without {gone:?}, with {new:?}"
        );
        self.verify(admin, &at);
        if !done {
            run(admin, &self.sql());
            assert!(self.is_done(admin), "{at}: the next call did nothing");
        }
        self.write(admin, &at);
        self.verify(admin, &at);
        self.end(admin);
        done
    }

    fn logs(&self, admin: &mut Client) -> Vec<String> {
        let sql = self.numbered(
            "SELECT log_name FROM verification_logs WHERE log_name IN ('c#', 'w#', 'new#')",
        );
        column(admin, &sql)
    }

    fn verify(&self, admin: &mut Client, at: &str) {
        for log in self.logs(admin) {
            let found: Vec<String> = findings(admin, &log);
            // What was done on purpose, and what the preparation left behind on purpose.
            let meant = |f: &String| {
                ["redacted ", "source_removed "]
                    .iter()
                    .any(|k| f.starts_with(k))
                    || self.call.function == "reconcile" && f.starts_with("unlogged ")
            };
            let wrong: Vec<&String> = found.iter().filter(|f| !meant(f)).collect();
            assert!(wrong.is_empty(), "{at}: {log}: {wrong:?}");
        }
        let found = findings(admin, "merkle_log_administration");
        assert!(found.is_empty(), "{at}: {found:?}");
    }

    fn write(&self, admin: &mut Client, at: &str) {
        let sql = self.numbered(
            "INSERT INTO c# (id, note) SELECT max(id) + 1, 'later' FROM c#; INSERT INTO x# (id, note) SELECT max(id) + 1, 'later' FROM x#;
             INSERT INTO w# (note) VALUES ('later')",
        );
        admin
            .batch_execute(&sql)
            .unwrap_or_else(|e| panic!("{at}: writers cannot go on: {e:?}"));
        for log in self.logs(admin) {
            drain(admin, &log);
        }
    }

    fn end(&self, admin: &mut Client) {
        for log in self.logs(admin) {
            run(admin, &format!("SELECT drop_log('{log}', confirm => true)"));
        }
        run(admin, &self.numbered("DROP TABLE c#, x#, w#"));
    }
}
