-- From 0.1.0 to 0.2.0: trigger capture, background worker, retention, redaction, operations.

ALTER TABLE @extschema@.verification_logs
    DROP CONSTRAINT verification_logs_order_domain_check,
    ADD CONSTRAINT verification_logs_order_domain_check CHECK (order_domain OPERATOR(pg_catalog.=) ANY (ARRAY['time', 'number', 'uuid', 'arrival'])),
    ALTER COLUMN batch_size DROP NOT NULL,
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN run_interval interval CHECK (run_interval OPERATOR(pg_catalog.>) interval '0'),
    ADD COLUMN reconcile_interval interval CHECK (reconcile_interval OPERATOR(pg_catalog.>=) interval '0'),
    ADD COLUMN pruned_to bigint NOT NULL DEFAULT 0;

ALTER TABLE @extschema@.verification_sources
    DROP CONSTRAINT verification_sources_capture_check,
    ADD CONSTRAINT verification_sources_capture_check CHECK (capture OPERATOR(pg_catalog.=) ANY (ARRAY['watermark', 'trigger'])),
    ALTER COLUMN order_column DROP NOT NULL,
    ADD COLUMN append_only boolean NOT NULL DEFAULT false,
    ADD COLUMN allow_truncate boolean NOT NULL DEFAULT false,
    ADD COLUMN store_leaf_data boolean NOT NULL DEFAULT false,
    ADD COLUMN salted boolean NOT NULL DEFAULT false,
    ADD COLUMN backfill text[],
    ADD COLUMN pruned_order text,
    ADD COLUMN complete boolean NOT NULL DEFAULT true,
    ADD CHECK (capture OPERATOR(pg_catalog.=) 'trigger' OR order_column IS NOT NULL);

ALTER TABLE @extschema@.merkle_tile
    DROP CONSTRAINT merkle_tile_level_check,
    ADD CONSTRAINT merkle_tile_level_check CHECK (level OPERATOR(pg_catalog.>=) 0);

ALTER TABLE @extschema@.merkle_tree_head ADD COLUMN duration interval;

CREATE TABLE @extschema@.merkle_leaf_data (
    log_id     integer NOT NULL,
    leaf_index bigint  NOT NULL,
    salt       bytea,
    leaf_data  bytea,
    PRIMARY KEY (log_id, leaf_index)
) USING heap;

CREATE TABLE @extschema@.merkle_statement (
    log_id           integer     NOT NULL,
    from_leaf_index  bigint      NOT NULL,
    entries          integer     NOT NULL CHECK (entries OPERATOR(pg_catalog.>) 0),
    source_id        integer     NOT NULL,
    kind             text        NOT NULL,
    transaction_id   xid8        NOT NULL,
    user_name        text        NOT NULL,
    application_name text        NOT NULL,
    statement_at     timestamptz NOT NULL,
    PRIMARY KEY (log_id, from_leaf_index)
) USING heap;

-- The queue of trigger capture. Written by capture_change() past the executor: its columns and their
-- order are known to the library. It has no index: writers pay for one, and what reads it reads all.
CREATE TABLE @extschema@.merkle_pending (
    log_id           integer     NOT NULL,
    pending_id       bigint      NOT NULL,
    source_id        integer     NOT NULL,
    version          integer,
    columns          text[],
    kind             text        NOT NULL,
    transaction_id   xid8        NOT NULL,
    user_name        text        NOT NULL,
    application_name text        NOT NULL,
    statement_at     timestamptz NOT NULL,
    keys             text[]      NOT NULL,
    whole            boolean     NOT NULL,
    leaves           bytea[]     NOT NULL,
    salts            bytea[]
) USING heap WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

ALTER TABLE @extschema@.merkle_pending
    ALTER COLUMN keys SET STORAGE EXTERNAL,
    ALTER COLUMN leaves SET STORAGE EXTERNAL,
    ALTER COLUMN salts SET STORAGE EXTERNAL;

CREATE SEQUENCE @extschema@.merkle_pending_id;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_leaf_data', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_statement', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_pending', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_pending_id', '');

CREATE FUNCTION "add_source"(
	"log" TEXT,
	"source_table" regclass,
	"order_column" TEXT DEFAULT NULL,
	"key_columns" TEXT[] DEFAULT NULL,
	"columns" TEXT[] DEFAULT NULL,
	"hash_column" TEXT DEFAULT NULL,
	"capture" TEXT DEFAULT NULL,
	"append_only" bool DEFAULT false,
	"allow_truncate" bool DEFAULT false,
	"store_leaf_data" bool DEFAULT false,
	"salted" bool DEFAULT false,
	"backfill" bool DEFAULT true
) RETURNS INT
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'add_source_v2_wrapper';

CREATE FUNCTION "alter_log"(
	"name" TEXT,
	"new_name" TEXT DEFAULT NULL,
	"batch_size" INT DEFAULT NULL,
	"settle" interval DEFAULT NULL,
	"run_interval" interval DEFAULT NULL,
	"reconcile_interval" interval DEFAULT NULL
) RETURNS VOID
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'alter_log_v2_wrapper';

CREATE FUNCTION "alter_source"(
	"log" TEXT,
	"source_table" regclass,
	"columns" TEXT[] DEFAULT NULL,
	"hash_column" TEXT DEFAULT NULL,
	"append_only" bool DEFAULT NULL,
	"allow_truncate" bool DEFAULT NULL,
	"store_leaf_data" bool DEFAULT NULL
) RETURNS INT
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'alter_source_v2_wrapper';

CREATE FUNCTION "backfill"(
	"log" TEXT,
	"source_table" regclass
) RETURNS VOID
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'backfill_wrapper';

CREATE FUNCTION "background_worker"() RETURNS TABLE (
	"pid" INT,
	"heartbeat" timestamp with time zone
)
STRICT VOLATILE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'background_worker_wrapper';

CREATE FUNCTION "coverage_holes"(
	"source_id" INT
) RETURNS TABLE (
	"relation" oid,
	"problem" TEXT,
	"rows" bigint,
	"mend" TEXT
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'coverage_holes_wrapper';

CREATE FUNCTION "create_log"(
	"name" TEXT,
	"batch_size" INT DEFAULT NULL,
	"settle" interval DEFAULT '0',
	"run_interval" interval DEFAULT NULL,
	"reconcile_interval" interval DEFAULT NULL
) RETURNS INT
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'create_log_v2_wrapper';

CREATE FUNCTION "history"(
	"log" TEXT,
	"source_table" regclass,
	"key" TEXT
) RETURNS TABLE (
	"leaf_index" bigint,
	"operation" TEXT,
	"row_data" jsonb,
	"transaction_id" TEXT,
	"user_name" TEXT,
	"application_name" TEXT,
	"statement_at" timestamp with time zone
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'row_history_wrapper';

CREATE FUNCTION "log_counters"(
	"log_id" INT
) RETURNS TABLE (
	"batches" bigint,
	"entries" bigint,
	"errors" bigint,
	"failures" INT,
	"last_run_at" timestamp with time zone,
	"last_duration" interval,
	"next_run_at" timestamp with time zone,
	"last_reconciled_at" timestamp with time zone,
	"cache_hits" bigint,
	"cache_misses" bigint
)
STRICT VOLATILE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'log_counters_wrapper';

CREATE FUNCTION "log_lag"(
	"log_id" INT
) RETURNS TABLE (
	"rows" bigint,
	"seconds" double precision
)
STRICT VOLATILE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'log_lag_wrapper';

CREATE FUNCTION "merkle_log_health"() RETURNS TABLE (
	"check_name" TEXT,
	"object" TEXT,
	"ok" bool,
	"detail" TEXT,
	"mend" TEXT
)
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'merkle_log_health_wrapper';

CREATE FUNCTION "merkle_log_metrics"() RETURNS TEXT
STRICT VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'merkle_log_metrics_wrapper';

CREATE FUNCTION "merkle_log_warm"(
	"log" TEXT
) RETURNS bigint
VOLATILE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'merkle_log_warm_wrapper';

CREATE FUNCTION "node_cache"() RETURNS TABLE (
	"hashes" bigint,
	"room" bigint
)
STRICT VOLATILE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'node_cache_wrapper';

CREATE FUNCTION "pause_log"(
	"name" TEXT
) RETURNS VOID
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'pause_log_wrapper';

CREATE FUNCTION "prune_log"(
	"log" TEXT,
	"before_leaf_index" bigint
) RETURNS bigint
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'prune_log_wrapper';

CREATE FUNCTION "redact"(
	"log" TEXT,
	"leaf_index" bigint,
	"reason" TEXT
) RETURNS bigint
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'redact_wrapper';

CREATE FUNCTION "repair_capture"(
	"log" TEXT,
	"source_table" regclass
) RETURNS VOID
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'repair_capture_wrapper';

CREATE FUNCTION "resume_log"(
	"name" TEXT
) RETURNS VOID
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'resume_log_wrapper';

CREATE FUNCTION "run_now"(
	"log" TEXT
) RETURNS VOID
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_now_wrapper';

CREATE FUNCTION "schedule_log"(
	"log" TEXT,
	"schedule" TEXT DEFAULT '* * * * *'
) RETURNS bigint
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'schedule_log_wrapper';

CREATE FUNCTION "unschedule_log"(
	"log" TEXT
) RETURNS bool
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'unschedule_log_wrapper';

CREATE FUNCTION "capture_change"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'capture_change_wrapper';

CREATE FUNCTION "refuse_change"()
	RETURNS TRIGGER
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'refuse_change_wrapper';


-- Functions that have got more arguments keep the privileges that were granted on them.
DO $$
DECLARE
    replaced record;
    granted  record;
BEGIN
    FOR replaced IN
        SELECT p.old::pg_catalog.regprocedure AS old, p.new::pg_catalog.regprocedure AS new FROM (VALUES
            ('@extschema@.add_source(text, regclass, text, text[], text[], text, text)', '@extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean)'),
            ('@extschema@.alter_log(text, text, integer, interval)', '@extschema@.alter_log(text, text, integer, interval, interval, interval)'),
            ('@extschema@.alter_source(text, regclass, text[], text)', '@extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean)'),
            ('@extschema@.create_log(text, integer, interval)', '@extschema@.create_log(text, integer, interval, interval, interval)')) p (old, new)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', replaced.new);
        FOR granted IN
            SELECT a.grantee, a.is_grantable
              FROM pg_catalog.pg_proc f, pg_catalog.aclexplode(f.proacl) a
             WHERE f.oid OPERATOR(pg_catalog.=) replaced.old AND a.grantee OPERATOR(pg_catalog.<>) f.proowner
        LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', replaced.new,
                CASE WHEN granted.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(granted.grantee)) END,
                CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
        EXECUTE pg_catalog.format('DROP FUNCTION %s', replaced.old);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION
    @extschema@.pause_log(text),
    @extschema@.resume_log(text),
    @extschema@.backfill(text, regclass),
    @extschema@.repair_capture(text, regclass),
    @extschema@.capture_change(),
    @extschema@.refuse_change(),
    @extschema@.run_now(text),
    @extschema@.redact(text, bigint, text),
    @extschema@.prune_log(text, bigint),
    @extschema@.merkle_log_warm(text),
    @extschema@.schedule_log(text, text),
    @extschema@.unschedule_log(text),
    @extschema@.coverage_holes(integer),
    @extschema@.merkle_log_health(),
    @extschema@.merkle_log_metrics()
FROM PUBLIC;

REVOKE ALL ON
    @extschema@.merkle_leaf_data,
    @extschema@.merkle_statement,
    @extschema@.merkle_pending
FROM PUBLIC;

CREATE OR REPLACE VIEW @extschema@.merkle_log_status AS
SELECT l.log_name,
       l.enabled,
       l.order_domain,
       l.batch_size,
       l.settle,
       (SELECT pg_catalog.count(*) FROM @extschema@.verification_sources s
         WHERE s.log_id OPERATOR(pg_catalog.=) l.log_id AND s.removed_at IS NULL) AS sources,
       COALESCE(h.tree_size, 0) AS tree_size,
       h.root_hash,
       h.created_at AS last_batch_at,
       l.waiting_for,
       l.last_error,
       l.last_error_at,
       l.paused,
       l.run_interval,
       l.reconcile_interval,
       l.pruned_to,
       g.rows AS lag_rows,
       g.seconds AS lag_seconds,
       h.tree_size OPERATOR(pg_catalog.-) COALESCE(b.tree_size, 0) AS last_batch_entries,
       h.duration AS last_batch_duration,
       (h.tree_size OPERATOR(pg_catalog.-) COALESCE(b.tree_size, 0))::pg_catalog.float8
           OPERATOR(pg_catalog./) CASE WHEN h.duration OPERATOR(pg_catalog.<>) '0'::pg_catalog.interval
                                       THEN EXTRACT(epoch FROM h.duration)::pg_catalog.float8 END AS entries_per_second,
       c.last_run_at,
       c.last_duration,
       c.next_run_at,
       c.last_reconciled_at,
       c.failures,
       c.batches,
       c.entries,
       c.errors,
       c.cache_hits,
       c.cache_misses,
       w.pid AS worker_pid,
       w.heartbeat AS worker_heartbeat
  FROM @extschema@.verification_logs l
  LEFT JOIN LATERAL (SELECT t.tree_size, t.root_hash, t.created_at, t.duration
                       FROM @extschema@.merkle_tree_head t
                      WHERE t.log_id OPERATOR(pg_catalog.=) l.log_id
                      ORDER BY t.tree_size DESC LIMIT 1) h ON true
  LEFT JOIN LATERAL (SELECT t.tree_size
                       FROM @extschema@.merkle_tree_head t
                      WHERE t.log_id OPERATOR(pg_catalog.=) l.log_id AND t.tree_size OPERATOR(pg_catalog.<) h.tree_size
                      ORDER BY t.tree_size DESC LIMIT 1) b ON true
  LEFT JOIN LATERAL @extschema@.log_lag(l.log_id) g ON true
  LEFT JOIN LATERAL @extschema@.log_counters(l.log_id) c ON true
  LEFT JOIN LATERAL @extschema@.background_worker() w ON true;

CREATE OR REPLACE VIEW @extschema@.merkle_log_sources AS
SELECT l.log_name,
       s.source_table,
       s.relation,
       s.capture,
       s.order_column,
       s.key_columns,
       s.columns,
       s.hash_column,
       s.watermark,
       v.version,
       v.from_leaf_index AS version_from_leaf_index,
       v.change AS version_change,
       s.added_at,
       s.removed_at,
       s.append_only,
       s.allow_truncate,
       s.store_leaf_data,
       s.salted,
       s.backfill
  FROM @extschema@.verification_sources s
  JOIN @extschema@.verification_logs l ON l.log_id OPERATOR(pg_catalog.=) s.log_id
  JOIN LATERAL (SELECT w.version, w.from_leaf_index, w.change
                  FROM @extschema@.verification_source_versions w
                 WHERE w.source_id OPERATOR(pg_catalog.=) s.source_id
                 ORDER BY w.version DESC LIMIT 1) v ON true;

-- Reads every row of the sources that it is asked about: WHERE log_name = … saves the others.
CREATE VIEW @extschema@.merkle_log_coverage AS
SELECT l.log_name,
       s.source_table,
       h.relation::pg_catalog.regclass AS relation,
       h.problem,
       h.rows,
       h.mend
  FROM @extschema@.verification_sources s
  JOIN @extschema@.verification_logs l ON l.log_id OPERATOR(pg_catalog.=) s.log_id
  CROSS JOIN LATERAL @extschema@.coverage_holes(s.source_id) h
 WHERE s.removed_at IS NULL;

GRANT SELECT ON @extschema@.merkle_log_coverage TO pg_monitor;
GRANT EXECUTE ON FUNCTION
    @extschema@.coverage_holes(integer),
    @extschema@.merkle_log_health(),
    @extschema@.merkle_log_metrics()
TO pg_monitor;

COMMENT ON COLUMN @extschema@.merkle_tree_head.duration IS 'How long the batch took to be written.';
COMMENT ON COLUMN @extschema@.verification_logs.batch_size IS 'Entries that one batch appends at most; NULL: merkle_log.batch_size.';
COMMENT ON COLUMN @extschema@.verification_logs.run_interval IS 'How often the background worker runs the log; NULL: merkle_log.run_interval.';
COMMENT ON COLUMN @extschema@.verification_logs.reconcile_interval IS 'How often the background worker looks for late rows, zero for never; NULL: merkle_log.reconcile_interval.';
COMMENT ON COLUMN @extschema@.verification_logs.pruned_to IS 'Entries before this leaf index were pruned.';
COMMENT ON COLUMN @extschema@.verification_sources.backfill IS 'The key after which rows without an entry are still to be looked for; NULL when that is done.';
COMMENT ON COLUMN @extschema@.verification_sources.complete IS 'Every row is to have an entry: false for a captured table whose old rows were left out.';
COMMENT ON COLUMN @extschema@.verification_sources.pruned_order IS 'The highest order value among the entries that were pruned.';
COMMENT ON TABLE @extschema@.merkle_leaf_data IS 'Salts, and the leaf data of sources that keep it.';
COMMENT ON TABLE @extschema@.merkle_statement IS 'The statements that trigger capture saw, each with the run of entries it made.';
COMMENT ON TABLE @extschema@.merkle_pending IS 'Changes that triggers have captured and no batch has logged yet.';
COMMENT ON FUNCTION @extschema@.create_log(text, integer, interval, interval, interval) IS 'Creates a log; returns its id.';
COMMENT ON FUNCTION @extschema@.alter_log(text, text, integer, interval, interval, interval) IS 'Changes a log''s name, batch size or intervals; NULL leaves a setting as it is.';
COMMENT ON FUNCTION @extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean) IS 'Lets a table feed a log; returns the source''s id.';
COMMENT ON FUNCTION @extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean) IS 'Changes which columns are logged, from now on, and what is refused or kept; returns the number of the version in force.';
COMMENT ON FUNCTION @extschema@.backfill(text, regclass) IS 'Lets batches log the rows that were there before the triggers.';
COMMENT ON FUNCTION @extschema@.repair_capture(text, regclass) IS 'Makes or enables triggers that a source lacks, and lets batches log rows that went past them.';
COMMENT ON FUNCTION @extschema@.capture_change() IS 'What the triggers of captured tables call.';
COMMENT ON FUNCTION @extschema@.refuse_change() IS 'What the triggers of append-only tables call.';
COMMENT ON FUNCTION @extschema@.run_now(text) IS 'Wakes the background worker for a log, without waiting for it.';
COMMENT ON FUNCTION @extschema@.pause_log(text) IS 'Keeps the background worker from running the log; batches by hand go on.';
COMMENT ON FUNCTION @extschema@.resume_log(text) IS 'Lets the background worker run the log again.';
COMMENT ON FUNCTION @extschema@.log_counters(integer) IS 'What a log has done since the server started; no row without preload.';
COMMENT ON FUNCTION @extschema@.log_lag(integer) IS 'How many rows wait to be logged, and for how long; NULL if a source cannot be read.';
COMMENT ON FUNCTION @extschema@.background_worker() IS 'The background worker of this database; no row if there is none.';
COMMENT ON FUNCTION @extschema@.node_cache() IS 'How full the node cache is; no row without one.';
COMMENT ON FUNCTION @extschema@.coverage_holes(integer) IS 'What merkle_log_coverage is made of.';
COMMENT ON FUNCTION @extschema@.merkle_log_health() IS 'One row a check: whether it is ok, what was found, and how to mend it.';
COMMENT ON FUNCTION @extschema@.merkle_log_metrics() IS 'All figures in the text format of Prometheus.';
COMMENT ON FUNCTION @extschema@.merkle_log_warm(text) IS 'Fills the node cache with a log''s tree, from the root down; returns how many hashes.';
COMMENT ON FUNCTION @extschema@.schedule_log(text, text) IS 'Lets pg_cron run the log''s batches; returns the job''s id.';
COMMENT ON FUNCTION @extschema@.unschedule_log(text) IS 'Takes the log''s pg_cron job away; false if there was none of the caller''s.';
COMMENT ON FUNCTION @extschema@.history(text, regclass, text) IS 'Every version of a row that the log keeps.';
COMMENT ON FUNCTION @extschema@.redact(text, bigint, text) IS 'Destroys the salt and leaf data of an entry, and logs that; returns the leaf index of the entry that says so.';
COMMENT ON FUNCTION @extschema@.prune_log(text, bigint) IS 'Drops the entries before a leaf index, rounded down to a tile; returns how many.';
COMMENT ON VIEW @extschema@.merkle_log_coverage IS 'Where changes escape a log, or rows have escaped it; no row means that nothing does.';
