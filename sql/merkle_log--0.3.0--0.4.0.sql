-- From 0.3.0 to 0.4.0.

-- Capture.

-- What a column is to its source, and what its values depend on, belongs to the version. Where it is NULL, names
-- tell it as before, until the table is read next.
ALTER TABLE @extschema@.verification_source_columns
    ADD COLUMN key_position smallint,
    ADD COLUMN orders boolean NOT NULL DEFAULT false,
    ADD COLUMN type_oid oid,
    ADD COLUMN type_modifier integer,
    ADD COLUMN type_definition jsonb;

COMMENT ON COLUMN @extschema@.verification_source_columns.attnum IS 'The column''s number in the table; NULL where a restored dump does not tell which column it is.';
COMMENT ON COLUMN @extschema@.verification_source_columns.key_position IS 'The column''s place in the key, from 1.';
COMMENT ON COLUMN @extschema@.verification_source_columns.orders IS 'The column is the order column.';
COMMENT ON COLUMN @extschema@.verification_source_columns.type_definition IS 'The labels of enums and attributes of composite types by which values of the column were encoded.';

-- A transaction writes one row of queue a log. Rows that 0.3.0 wrote are logged as they are.
ALTER TABLE @extschema@.merkle_pending
    ALTER COLUMN source_id DROP NOT NULL,
    ALTER COLUMN kind DROP NOT NULL,
    ALTER COLUMN user_name DROP NOT NULL,
    ALTER COLUMN application_name DROP NOT NULL,
    ALTER COLUMN statement_at DROP NOT NULL,
    ALTER COLUMN keys DROP NOT NULL,
    ALTER COLUMN whole DROP NOT NULL,
    ALTER COLUMN leaves DROP NOT NULL,
    ADD COLUMN part integer NOT NULL DEFAULT 0,
    ADD COLUMN changes integer,
    ADD COLUMN taken integer NOT NULL DEFAULT 0,
    ADD COLUMN early bigint,
    ADD COLUMN ordered boolean NOT NULL DEFAULT true,
    ADD COLUMN payload bytea;

ALTER TABLE @extschema@.merkle_pending ALTER COLUMN payload SET STORAGE EXTERNAL;

UPDATE @extschema@.merkle_pending p SET part = n.part
  FROM (SELECT q.ctid AS place,
               pg_catalog.row_number() OVER (PARTITION BY q.log_id, q.pending_id ORDER BY q.ctid)
               OPERATOR(pg_catalog.-) 1 AS part
          FROM @extschema@.merkle_pending q) n
 WHERE p.ctid OPERATOR(pg_catalog.=) n.place AND n.part OPERATOR(pg_catalog.>) 0;

ALTER TABLE @extschema@.merkle_pending ADD PRIMARY KEY (log_id, pending_id, part);

COMMENT ON COLUMN @extschema@.merkle_pending.pending_id IS 'Where the transaction stands in the queue; of rows that it wrote early, before that was known, a negative number of their own.';
COMMENT ON COLUMN @extschema@.merkle_pending.part IS 'The number of the row among those of its transaction.';
COMMENT ON COLUMN @extschema@.merkle_pending.statement_at IS 'When the first statement began whose changes the row holds.';
COMMENT ON COLUMN @extschema@.merkle_pending.changes IS 'How many changes the row holds.';
COMMENT ON COLUMN @extschema@.merkle_pending.taken IS 'How many of the changes are logged.';
COMMENT ON COLUMN @extschema@.merkle_pending.early IS 'The number under which rows stand that the transaction wrote early, whose changes come first; NULL if there are none.';
COMMENT ON COLUMN @extschema@.merkle_pending.ordered IS 'False where the changes in the transaction''s rows, taken together, have to be put in the order in which they were made.';
COMMENT ON COLUMN @extschema@.merkle_pending.payload IS 'The changes: keys, leaves, and what they were captured with.';

CREATE FUNCTION @extschema@."capture_truncate"("source_id" int, "whole" bool) RETURNS bool
STRICT PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'capture_truncate_wrapper';
COMMENT ON FUNCTION @extschema@.capture_truncate(integer, boolean) IS 'What the conditions of the triggers call that capture TRUNCATE: notes when it happened. Does nothing elsewhere.';

-- Row triggers take the place of statement triggers, and those for TRUNCATE get a condition. A table that is gone
-- has none.
DO $$
DECLARE
    source record;
    partition record;
    name text;
BEGIN
    FOR source IN SELECT s.source_id, s.relation FROM @extschema@.verification_sources s
                    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.relation::pg_catalog.oid
                   WHERE s.capture OPERATOR(pg_catalog.=) 'trigger' AND s.removed_at IS NULL
    LOOP
        FOR partition IN SELECT t.tgrelid::pg_catalog.regclass AS relation, t.tgname AS name FROM pg_catalog.pg_trigger t
                          WHERE t.tgname OPERATOR(pg_catalog.=) ANY (ARRAY[
                                    pg_catalog.format('merkle_log_%s_insert', source.source_id),
                                    pg_catalog.format('merkle_log_%s_update', source.source_id),
                                    pg_catalog.format('merkle_log_%s_delete', source.source_id),
                                    pg_catalog.format('merkle_log_%s_applied', source.source_id),
                                    pg_catalog.format('merkle_log_%s_truncate', source.source_id)]::pg_catalog.name[])
                            AND t.tgfoid OPERATOR(pg_catalog.=) '@extschema@.capture_change()'::pg_catalog.regprocedure
                            AND t.tgparentid OPERATOR(pg_catalog.=) 0
        LOOP
            EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', partition.name, partition.relation);
        END LOOP;
        name := pg_catalog.format('merkle_log_%s_change', source.source_id);
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION @extschema@.capture_change(%L)',
            name, source.relation, source.source_id);
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', source.relation, name);
        name := pg_catalog.format('merkle_log_%s_truncate', source.source_id);
        FOR partition IN SELECT source.relation AS relation, 'true' AS whole
                          UNION ALL
                         SELECT t.relid, 'false' FROM pg_catalog.pg_partition_tree(source.relation) t
                          WHERE t.relid OPERATOR(pg_catalog.<>) source.relation
        LOOP
            EXECUTE pg_catalog.format(
                'CREATE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT WHEN (@extschema@.capture_truncate(%s, %s)) EXECUTE FUNCTION @extschema@.capture_change(%L)',
                name, partition.relation, source.source_id, partition.whole, source.source_id);
            EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', partition.relation, name);
        END LOOP;
    END LOOP;
END
$$;

-- Entries and their limits.

-- A key is found by a hash of fixed size, so that its length does not matter. Here every key is hashed as
-- it is written; where equal keys can be written in several ways, the next batch hashes them again.
ALTER TABLE @extschema@.merkle_log ADD COLUMN key_hash bigint;
ALTER TABLE @extschema@.verification_sources ADD COLUMN key_equality text, ADD COLUMN logged_ahead text;
DROP INDEX @extschema@.merkle_log_source_key;
UPDATE @extschema@.merkle_log
   SET key_hash = ('x' OPERATOR(pg_catalog.||) pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(
                       pg_catalog.int4send(source_id) OPERATOR(pg_catalog.||) pg_catalog.convert_to(source_key, 'UTF8')
                   ), 'hex'), 16))::pg_catalog.bit(64)::pg_catalog.int8
 WHERE order_value IS NOT NULL;
UPDATE @extschema@.verification_sources SET key_equality = '';
-- Each source is looked at in a subtransaction.
ALTER FUNCTION @extschema@.log_lag(integer) PARALLEL UNSAFE;
-- Intervals of more than a hundred years, which create_log refuses now.
UPDATE @extschema@.verification_logs
   SET settle = LEAST(settle, interval '100 years'),
       run_interval = LEAST(run_interval, interval '100 years'),
       reconcile_interval = LEAST(reconcile_interval, interval '100 years')
 WHERE GREATEST(settle, run_interval, reconcile_interval) OPERATOR(pg_catalog.>) interval '100 years';
CREATE INDEX merkle_log_key_hash ON @extschema@.merkle_log (key_hash)
    WHERE key_hash IS NOT NULL;
COMMENT ON COLUMN @extschema@.merkle_log.key_hash IS 'Hash of source_id and source_key that all spellings of the key share; NULL where order_value is.';
COMMENT ON COLUMN @extschema@.verification_sources.key_equality IS 'What merkle_log.key_hash depends on for this source; where that changes, the next batch computes the hashes anew.';
COMMENT ON COLUMN @extschema@.verification_sources.logged_ahead IS 'No row ahead of the watermark that reconcile() has logged has a lower order value; NULL if there is none.';

CREATE TABLE @extschema@.merkle_set_aside (
    source_id  integer     NOT NULL,
    key_hash   bigint      NOT NULL,
    source_key text        COLLATE "C" NOT NULL,
    problem    text        NOT NULL,
    since      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (source_id, key_hash)
);
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_set_aside', '');
REVOKE ALL ON @extschema@.merkle_set_aside FROM PUBLIC;
COMMENT ON TABLE @extschema@.merkle_set_aside IS 'Rows that could not be read or encoded, which batches leave out and reconcile() tries again.';

-- Privileges and views.

CREATE FUNCTION @extschema@."may_read_log"(
    "log_id" INT
) RETURNS bool
STABLE STRICT PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'may_read_log_wrapper';

CREATE FUNCTION @extschema@."may_read_source"(
    "source_id" INT
) RETURNS bool
STABLE STRICT PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'may_read_source_wrapper';

COMMENT ON FUNCTION @extschema@.background_worker() IS 'The background worker of this database; of several, the one that was heard of the longest ago. No row unless all run.';
COMMENT ON FUNCTION @extschema@.may_read_log(integer) IS 'Whether the caller may be shown keys and content of all sources of a log.';
COMMENT ON FUNCTION @extschema@.may_read_source(integer) IS 'Whether the caller may be shown keys and content of a source.';

-- Operators that views named without their schema could have been those of another role. Views of the
-- extension's own are replaced, so that privileges that were granted on them stay.
CREATE OR REPLACE VIEW @extschema@.merkle_log_progress AS
SELECT r.pid,
       d.datname,
       r.command,
       l.log_name,
       r.rows_done,
       r.rows_total
  FROM @extschema@.running_commands() r
  JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) r.datid
  LEFT JOIN @extschema@.verification_logs l
    ON l.log_id OPERATOR(pg_catalog.=) r.log_id
   AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

-- Reads every row of the sources that it is asked about: WHERE log_name = … saves the others.
CREATE OR REPLACE VIEW @extschema@.merkle_log_coverage AS
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

-- Administration log and verification.

-- A log may have the name that is reserved now. Its name is no part of its entries.
DO $$
BEGIN
    UPDATE @extschema@.verification_logs SET log_name = 'merkle_log_administration of 0.3.0'
     WHERE log_name OPERATOR(pg_catalog.=) 'merkle_log_administration';
    IF FOUND THEN
        RAISE WARNING 'the log "merkle_log_administration" is now called "merkle_log_administration of 0.3.0"'
            USING HINT = 'The name is that of the administration log; alter_log gives yours another one.';
    END IF;
END
$$;

-- What is configured is put on record, as adopted, by the first batch or act.
INSERT INTO @extschema@.verification_logs (log_id, log_name, order_domain, settle)
    OVERRIDING SYSTEM VALUE VALUES (0, 'merkle_log_administration', 'arrival', '0');

SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_logs', 'WHERE log_id OPERATOR(pg_catalog.<>) 0');

ALTER TABLE @extschema@.merkle_tree_head ADD COLUMN metadata bytea;
ALTER TABLE @extschema@.merkle_leaf_data ADD COLUMN erased_salt bytea;

COMMENT ON COLUMN @extschema@.merkle_leaf_data.erased_salt IS 'Of a redacted entry, what stands for the destroyed salt in the digest of its batch.';

COMMENT ON COLUMN @extschema@.merkle_tree_head.metadata IS 'Digest of the keys, order values, sources, salts and statements of the batch''s entries; NULL before version 0.4.0.';

CREATE FUNCTION @extschema@.administration(
    log text DEFAULT NULL
) RETURNS TABLE (
    leaf_index       bigint,
    acted_at         timestamptz,
    user_name        text,
    application_name text,
    act              text,
    log_name         text,
    source_table     text,
    content          jsonb,
    role_name        text
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'administration_wrapper';

REVOKE ALL ON FUNCTION @extschema@.administration(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.administration(text) TO pg_monitor;

COMMENT ON FUNCTION @extschema@.administration(text) IS 'What was done to a log, or to all of them, and by whom: the entries of the administration log.';

CREATE FUNCTION @extschema@.finding_kinds() RETURNS TABLE (
    kind     text,
    fault_of text,
    meaning  text
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'finding_kinds_wrapper';

COMMENT ON FUNCTION @extschema@.finding_kinds() IS 'The kinds of findings that verify_log makes, where the fault lies, and what each means.';

-- Sources and what is promised about them.

CREATE TABLE @extschema@.merkle_source_state (
    source_id integer     PRIMARY KEY,
    state     text        NOT NULL,
    detail    text        NOT NULL,
    mend      text        NOT NULL,
    since     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) USING heap;

CREATE TABLE @extschema@.merkle_redacted_key (
    source_id   integer     NOT NULL,
    source_key  text        COLLATE "C" NOT NULL,
    leaf_index  bigint      NOT NULL,
    reason      text        NOT NULL,
    redacted_at timestamptz NOT NULL,
    key_hash    bigint      NOT NULL,
    PRIMARY KEY (source_id, leaf_index)
) USING heap;

-- A key has any length: it is found by its hash, and then compared.
CREATE INDEX merkle_redacted_key_hash ON @extschema@.merkle_redacted_key (source_id, key_hash);

CREATE TABLE @extschema@.merkle_late_entry (
    log_id     integer     NOT NULL,
    leaf_index bigint      NOT NULL,
    way        text        NOT NULL,
    found_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (log_id, leaf_index)
) USING heap;

CREATE TABLE @extschema@.verification_source_partitions (
    source_id       integer     NOT NULL,
    partition_name  text        NOT NULL,
    relation        regclass    NOT NULL,
    bound           text        NOT NULL,
    condition       text        NOT NULL,
    key_columns     text[]      NOT NULL,
    from_leaf_index bigint      NOT NULL,
    to_leaf_index   bigint,
    attached_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    detached_at     timestamptz,
    PRIMARY KEY (source_id, partition_name, from_leaf_index)
) USING heap;

CREATE TABLE @extschema@.merkle_database (
    system_identifier bigint      NOT NULL,
    database_oid      oid         NOT NULL,
    database_name     text        NOT NULL,
    timeline          integer     NOT NULL,
    since             timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    left_at           timestamptz,
    is_copy           boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (system_identifier, database_oid)
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_late_entry', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_partitions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_database', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_redacted_key', '');

-- A row that is found without an entry after a finished backfill came late.
ALTER TABLE @extschema@.verification_sources ADD COLUMN backfilled boolean NOT NULL DEFAULT false;
UPDATE @extschema@.verification_sources SET backfilled = true
 WHERE capture OPERATOR(pg_catalog.=) 'trigger' AND backfill IS NULL AND complete;

-- Whether the mode was named is not known of sources from before: then rows that come late are accepted.
ALTER TABLE @extschema@.verification_sources ADD COLUMN late_accepted boolean NOT NULL DEFAULT true;
ALTER TABLE @extschema@.verification_sources ADD COLUMN record_statement boolean NOT NULL DEFAULT false;
ALTER TABLE @extschema@.merkle_statement ADD COLUMN role_name text;

CREATE FUNCTION @extschema@.redact_row(
    log          text,
    source_table regclass,
    key          text,
    reason       text
) RETURNS bigint
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'redact_row_wrapper';

CREATE FUNCTION @extschema@.verify_row(
    log          text,
    source_table regclass,
    key          text
) RETURNS TABLE (
    status     text,
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    row_hash   bytea,
    root_hash  bytea,
    path       bytea[],
    detail     text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_row_wrapper';

CREATE FUNCTION @extschema@.late_entries(
    log text
) RETURNS TABLE (
    leaf_index   bigint,
    source_table text,
    source_key   text,
    way          text,
    found_at     timestamptz
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'late_entries_wrapper';

CREATE FUNCTION @extschema@.adopt_database(
    role text
) RETURNS text
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'adopt_database_wrapper';

CREATE FUNCTION @extschema@.held_as_copy_of() RETURNS text
STRICT STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'held_as_copy_of_wrapper';

CREATE OR REPLACE VIEW @extschema@.merkle_log_sources AS
SELECT l.log_name,
       s.source_table,
       s.relation,
       s.capture,
       s.order_column,
       s.key_columns,
       s.columns,
       s.hash_column,
       -- Order values and keys of rows.
       CASE WHEN @extschema@.may_read_source(s.source_id) THEN s.watermark END AS watermark,
       v.version,
       v.from_leaf_index AS version_from_leaf_index,
       v.change AS version_change,
       s.added_at,
       s.removed_at,
       s.append_only,
       s.allow_truncate,
       s.store_leaf_data,
       s.salted,
       CASE WHEN @extschema@.may_read_source(s.source_id) THEN s.backfill END AS backfill,
       CASE WHEN s.removed_at IS NULL THEN COALESCE(t.state, 'ready') ELSE 'removed' END AS state,
       t.detail AS state_detail,
       t.mend AS state_mend,
       t.since AS state_since,
       s.record_statement
  FROM @extschema@.verification_sources s
  JOIN @extschema@.verification_logs l ON l.log_id OPERATOR(pg_catalog.=) s.log_id
  LEFT JOIN LATERAL (SELECT w.version, w.from_leaf_index, w.change
                       FROM @extschema@.verification_source_versions w
                      WHERE w.source_id OPERATOR(pg_catalog.=) s.source_id
                      ORDER BY w.version DESC LIMIT 1) v ON true
  LEFT JOIN @extschema@.merkle_source_state t ON t.source_id OPERATOR(pg_catalog.=) s.source_id;

-- Hashes only, and so for everyone: what an outsider with any RFC 6962 implementation builds the tree from.
CREATE VIEW @extschema@.merkle_log_leaves AS
SELECT l.log_name,
       m.leaf_index,
       m.leaf_hash
  FROM @extschema@.verification_logs l
  JOIN @extschema@.merkle_log m ON m.log_id OPERATOR(pg_catalog.=) l.log_id;

-- Those above the leaf hashes, so that nobody need compute them.
CREATE VIEW @extschema@.merkle_log_tiles AS
SELECT l.log_name,
       t.level,
       t.tile_index,
       t.hashes
  FROM @extschema@.verification_logs l
  JOIN @extschema@.merkle_tile t ON t.log_id OPERATOR(pg_catalog.=) l.log_id
 WHERE t.level OPERATOR(pg_catalog.>) 0;

-- What ALTER DEFAULT PRIVILEGES has given to others is not meant for the new tables and functions. What somebody granted
-- on older ones stays.
DO $$
DECLARE
    revoke text;
BEGIN
    FOR revoke IN
        SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
                                 CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END)
          FROM (SELECT c.relowner, c.relacl, 'TABLE', c.oid::pg_catalog.regclass::pg_catalog.text
                  FROM pg_catalog.unnest(ARRAY[
                           '@extschema@.merkle_source_state', '@extschema@.merkle_redacted_key',
                           '@extschema@.merkle_late_entry', '@extschema@.verification_source_partitions',
                           '@extschema@.merkle_database', '@extschema@.merkle_log_leaves',
                           '@extschema@.merkle_log_tiles']::pg_catalog.regclass[]) t (oid)
                  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
                UNION ALL
                SELECT p.proowner, p.proacl, 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text
                  FROM pg_catalog.unnest(ARRAY[
                           '@extschema@.redact_row(text, regclass, text, text)',
                           '@extschema@.adopt_database(text)']::pg_catalog.regprocedure[]) f (oid)
                  JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) f.oid) o (owner, acl, kind, name)
         CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
          LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
         WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
           AND (o.kind OPERATOR(pg_catalog.<>) 'FUNCTION' OR a.grantee OPERATOR(pg_catalog.<>) 0)
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION
    @extschema@.redact_row(text, regclass, text, text),
    @extschema@.adopt_database(text)
FROM PUBLIC;

REVOKE ALL ON
    @extschema@.merkle_source_state,
    @extschema@.merkle_redacted_key,
    @extschema@.merkle_late_entry,
    @extschema@.verification_source_partitions,
    @extschema@.merkle_database
FROM PUBLIC;

GRANT SELECT ON @extschema@.merkle_log_leaves, @extschema@.merkle_log_tiles TO PUBLIC;

COMMENT ON COLUMN @extschema@.verification_sources.backfilled IS 'The rows that were there before the triggers have been logged: one that is found without an entry came late.';
COMMENT ON COLUMN @extschema@.verification_sources.record_statement IS 'The text of the statement is in the leaf data of a captured change.';
COMMENT ON COLUMN @extschema@.merkle_statement.role_name IS 'The role whose privileges counted; NULL where the version that captured the change did not record it.';
COMMENT ON COLUMN @extschema@.verification_sources.late_accepted IS 'The capture mode was named when the source was added: rows may come late. Otherwise the order column is to stay one whose values are drawn inside the INSERT.';
COMMENT ON TABLE @extschema@.merkle_source_state IS 'What is wrong with a source, as batches found it; no row if it is ready.';
COMMENT ON TABLE @extschema@.merkle_redacted_key IS 'Keys of rows that are redacted, in all entries there are and will be.';
COMMENT ON COLUMN @extschema@.merkle_redacted_key.leaf_index IS 'The entry that says that the row was redacted, and why.';
COMMENT ON TABLE @extschema@.merkle_late_entry IS 'Entries of rows that were found after they should have been logged.';
COMMENT ON COLUMN @extschema@.merkle_late_entry.way IS 'How the row escaped until then: behind_watermark, above_ceiling (its order value was ahead of the clock or the sequence) or past_triggers.';
COMMENT ON TABLE @extschema@.verification_source_partitions IS 'The partitions that sources have and had, and which rows were theirs.';
COMMENT ON COLUMN @extschema@.verification_source_partitions.condition IS 'What the partition''s rows fulfil, as SQL over the columns of the key.';
COMMENT ON COLUMN @extschema@.verification_source_partitions.to_leaf_index IS 'Entries from this leaf index on are not of the partition''s rows; NULL while it is attached.';
COMMENT ON TABLE @extschema@.merkle_database IS 'The database whose logs these are, and those whose they were before.';
COMMENT ON COLUMN @extschema@.merkle_database.is_copy IS 'It was adopted as a copy of another database, whose origins are not its own.';
COMMENT ON COLUMN @extschema@.merkle_database.left_at IS 'When adopt_database said that another database took its place; NULL for the present one.';
COMMENT ON COLUMN @extschema@.merkle_log_status.lag_rows IS 'Rows that wait to be logged, as far as they are counted: 10000 means at least 10000. NULL where a source cannot be asked; merkle_log_health() says why.';
COMMENT ON VIEW @extschema@.merkle_log_leaves IS 'The leaf hashes of all logs.';
COMMENT ON VIEW @extschema@.merkle_log_tiles IS 'The hashes of complete subtrees of all logs, in tiles of up to 256 (C2SP tlog-tiles), from level 1 on.';
COMMENT ON FUNCTION @extschema@.redact_row(text, regclass, text, text) IS 'Redacts every entry of a row, those to come included; returns how many were redacted now.';
COMMENT ON FUNCTION @extschema@.verify_row(text, regclass, text) IS 'Whether a row, as it is now, is what was logged, with the proof of its latest entry.';
COMMENT ON FUNCTION @extschema@.late_entries(text) IS 'Entries of rows that were found after they should have been logged, and when; keys are shown to those who may read the source.';
COMMENT ON FUNCTION @extschema@.adopt_database(text) IS 'Says what a database is that has the logs of another: continue takes its place, copy disables the logs.';
COMMENT ON FUNCTION @extschema@.held_as_copy_of() IS 'The database whose logs this one has, while nobody has said what this one is; NULL otherwise.';

-- Keys as applications have them (sql/by_key.sql).

CREATE FUNCTION @extschema@.inclusion_proof_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'inclusion_proof_of_wrapper';

CREATE FUNCTION @extschema@.inclusion_proof_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'inclusion_proof_of_wrapper';

CREATE FUNCTION @extschema@.wait_for_inclusion_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'wait_for_inclusion_of_wrapper';

CREATE FUNCTION @extschema@.wait_for_inclusion_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'wait_for_inclusion_of_wrapper';

CREATE FUNCTION @extschema@.history_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    leaf_index       bigint,
    operation        text,
    row_data         jsonb,
    transaction_id   text,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    role_name        text,
    context          jsonb,
    statement        text,
    statement_bytes  bigint
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'history_of_wrapper';

CREATE FUNCTION @extschema@.history_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    leaf_index       bigint,
    operation        text,
    row_data         jsonb,
    transaction_id   text,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    role_name        text,
    context          jsonb,
    statement        text,
    statement_bytes  bigint
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'history_of_wrapper';

CREATE FUNCTION @extschema@.verify_row_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    status     text,
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    row_hash   bytea,
    root_hash  bytea,
    path       bytea[],
    detail     text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_row_of_wrapper';

CREATE FUNCTION @extschema@.verify_row_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    status     text,
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    row_hash   bytea,
    root_hash  bytea,
    path       bytea[],
    detail     text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_row_of_wrapper';

CREATE FUNCTION @extschema@.redact_row_of(
    log          text,
    source_table regclass,
    reason       text,
    VARIADIC key "any"
) RETURNS bigint
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'redact_row_of_wrapper';

CREATE FUNCTION @extschema@.redact_row_of(
    log          text,
    source_table regclass,
    reason       text,
    VARIADIC key text[]
) RETURNS bigint
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'redact_row_of_wrapper';

REVOKE ALL ON FUNCTION
    @extschema@.redact_row_of(text, regclass, text, "any"),
    @extschema@.redact_row_of(text, regclass, text, text[])
FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.inclusion_proof_of(text, regclass, "any") IS 'The proof that a row is in the log, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.inclusion_proof_of(text, regclass, text[]) IS 'The proof that a row is in the log, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.wait_for_inclusion_of(text, regclass, "any") IS 'Waits until a row is in the log, for as long as merkle_log.inclusion_timeout says, and returns its inclusion proof.';
COMMENT ON FUNCTION @extschema@.wait_for_inclusion_of(text, regclass, text[]) IS 'Waits until a row is in the log, for as long as merkle_log.inclusion_timeout says, and returns its inclusion proof.';
COMMENT ON FUNCTION @extschema@.history_of(text, regclass, "any") IS 'Every version of a row that the log keeps, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.history_of(text, regclass, text[]) IS 'Every version of a row that the log keeps, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.verify_row_of(text, regclass, "any") IS 'Whether a row, as it is now, is what was logged, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.verify_row_of(text, regclass, text[]) IS 'Whether a row, as it is now, is what was logged, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.redact_row_of(text, regclass, text, "any") IS 'Redacts every entry of a row, those to come included, by the values of the row''s key; returns how many were redacted now.';
COMMENT ON FUNCTION @extschema@.redact_row_of(text, regclass, text, text[]) IS 'Redacts every entry of a row, those to come included, by the values of the row''s key; returns how many were redacted now.';

-- Leaf hashes, roots, and what checkpoints need of a log.

ALTER TABLE @extschema@.verification_logs
    ADD COLUMN find_by_hash boolean NOT NULL DEFAULT false,
    ADD COLUMN origin text COLLATE "C" UNIQUE,
    ADD COLUMN checkpoint_interval interval CHECK (checkpoint_interval OPERATOR(pg_catalog.>) interval '0'),
    ADD COLUMN verify_interval interval DEFAULT '1 day' CHECK (verify_interval OPERATOR(pg_catalog.>) interval '0');

CREATE INDEX merkle_tree_head_root_hash ON @extschema@.merkle_tree_head (root_hash);

CREATE TABLE @extschema@.merkle_hash_index (
    log_id  integer NOT NULL,
    run     bigint  NOT NULL,
    entries integer NOT NULL,
    hashes  bytea   NOT NULL,
    PRIMARY KEY (log_id, run)
) USING heap;

ALTER TABLE @extschema@.merkle_hash_index ALTER COLUMN hashes SET STORAGE EXTERNAL;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_hash_index', '');

CREATE FUNCTION @extschema@.create_log(
    name                text,
    batch_size          integer DEFAULT NULL,
    settle              interval DEFAULT '0',
    run_interval        interval DEFAULT NULL,
    reconcile_interval  interval DEFAULT NULL,
    find_by_hash        boolean DEFAULT false,
    origin              text DEFAULT NULL,
    checkpoint_interval interval DEFAULT NULL,
    verify_interval     interval DEFAULT '1 day'
) RETURNS integer
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'create_log_v3_wrapper';

CREATE FUNCTION @extschema@.alter_log(
    name                text,
    new_name            text DEFAULT NULL,
    batch_size          integer DEFAULT NULL,
    settle              interval DEFAULT NULL,
    run_interval        interval DEFAULT NULL,
    reconcile_interval  interval DEFAULT NULL,
    find_by_hash        boolean DEFAULT NULL,
    origin              text DEFAULT NULL,
    checkpoint_interval interval DEFAULT NULL,
    verify_interval     interval DEFAULT NULL
) RETURNS void
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'alter_log_v3_wrapper';

CREATE FUNCTION @extschema@.add_source(
    log              text,
    source_table     regclass,
    order_column     text DEFAULT NULL,
    key_columns      text[] DEFAULT NULL,
    columns          text[] DEFAULT NULL,
    hash_column      text DEFAULT NULL,
    capture          text DEFAULT NULL,
    append_only      boolean DEFAULT false,
    allow_truncate   boolean DEFAULT false,
    store_leaf_data  boolean DEFAULT false,
    salted           boolean DEFAULT false,
    backfill         boolean DEFAULT true,
    record_statement boolean DEFAULT false
) RETURNS integer
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'add_source_v3_wrapper';

CREATE FUNCTION @extschema@.alter_source(
    log              text,
    source_table     regclass,
    columns          text[] DEFAULT NULL,
    hash_column      text DEFAULT NULL,
    append_only      boolean DEFAULT NULL,
    allow_truncate   boolean DEFAULT NULL,
    store_leaf_data  boolean DEFAULT NULL,
    record_statement boolean DEFAULT NULL
) RETURNS integer
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'alter_source_v3_wrapper';

-- What history returns has got more columns.
ALTER FUNCTION @extschema@.history(text, regclass, text) RENAME TO history_0_3_0;

CREATE FUNCTION @extschema@.history(
    log          text,
    source_table regclass,
    key          text
) RETURNS TABLE (
    leaf_index       bigint,
    operation        text,
    row_data         jsonb,
    transaction_id   text,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    role_name        text,
    context          jsonb,
    statement        text,
    statement_bytes  bigint
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'row_history_wrapper';

-- Functions that have got more arguments or columns keep the privileges that were granted on them.
DO $$
DECLARE
    replaced record;
    granted  record;
BEGIN
    FOR replaced IN
        SELECT p.old::pg_catalog.regprocedure AS old, p.new::pg_catalog.regprocedure AS new FROM (VALUES
            ('@extschema@.create_log(text, integer, interval, interval, interval)', '@extschema@.create_log(text, integer, interval, interval, interval, boolean, text, interval, interval)'),
            ('@extschema@.alter_log(text, text, integer, interval, interval, interval)', '@extschema@.alter_log(text, text, integer, interval, interval, interval, boolean, text, interval, interval)'),
            ('@extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean)', '@extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean, boolean)'),
            ('@extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean)', '@extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean, boolean)'),
            ('@extschema@.history_0_3_0(text, regclass, text)', '@extschema@.history(text, regclass, text)')) p (old, new)
    LOOP
        -- Without privileges of its own, everyone may execute a function.
        IF EXISTS (SELECT FROM pg_catalog.pg_proc f WHERE f.oid OPERATOR(pg_catalog.=) replaced.old AND f.proacl IS NOT NULL) THEN
            EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', replaced.new);
        END IF;
        -- Nor is what ALTER DEFAULT PRIVILEGES has given to others meant for it.
        FOR granted IN
            SELECT a.grantee
              FROM pg_catalog.pg_proc f, pg_catalog.aclexplode(f.proacl) a
             WHERE f.oid OPERATOR(pg_catalog.=) replaced.new AND a.grantee OPERATOR(pg_catalog.<>) f.proowner
               AND a.grantee OPERATOR(pg_catalog.<>) 0
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s', replaced.new,
                pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(granted.grantee)));
        END LOOP;
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

CREATE FUNCTION @extschema@.find_leaf(
    log       text,
    leaf_hash bytea
) RETURNS SETOF bigint
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'find_leaf_wrapper';

CREATE FUNCTION @extschema@.has_leaf(
    log       text,
    leaf_hash bytea
) RETURNS boolean
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'has_leaf_wrapper';

CREATE FUNCTION @extschema@.find_root(
    log       text,
    root_hash bytea
) RETURNS bigint
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'find_root_wrapper';

CREATE FUNCTION @extschema@.has_root(
    log       text,
    root_hash bytea
) RETURNS boolean
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'has_root_wrapper';

CREATE FUNCTION @extschema@.inclusion_proof_by_hash(
    log       text,
    leaf_hash bytea,
    tree_size bigint DEFAULT NULL
) RETURNS TABLE (
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'inclusion_proof_by_hash_wrapper';

CREATE FUNCTION @extschema@.consistency_proof_by_root(
    log      text,
    old_root bytea,
    new_size bigint DEFAULT NULL
) RETURNS TABLE (
    old_size bigint,
    new_size bigint,
    old_root bytea,
    new_root bytea,
    path     bytea[]
)
STABLE PARALLEL RESTRICTED
LANGUAGE c
AS 'MODULE_PATHNAME', 'consistency_proof_by_root_wrapper';

CREATE FUNCTION @extschema@.log_entries(
    log        text,
    from_index bigint DEFAULT 0,
    to_index   bigint DEFAULT NULL
) RETURNS TABLE (
    leaf_index   bigint,
    source_table text,
    source_key   text,
    leaf_hash    bytea,
    leaf_data    bytea
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'log_entries_wrapper';

CREATE FUNCTION @extschema@.entry_bundles(
    log        text,
    from_index bigint DEFAULT 0,
    to_index   bigint DEFAULT NULL
) RETURNS TABLE (
    first_index  bigint,
    leaf_hashes  bytea,
    entry_bundle bytea
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'entry_bundles_wrapper';

COMMENT ON FUNCTION @extschema@.create_log(text, integer, interval, interval, interval, boolean, text, interval, interval) IS 'Creates a log; returns its id.';
COMMENT ON FUNCTION @extschema@.alter_log(text, text, integer, interval, interval, interval, boolean, text, interval, interval) IS 'Changes a log''s settings; NULL leaves a setting as it is.';
COMMENT ON FUNCTION @extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean, boolean) IS 'Lets a table feed a log; returns the source''s id.';
COMMENT ON FUNCTION @extschema@.history(text, regclass, text) IS 'Every version of a row that the log keeps.';
COMMENT ON FUNCTION @extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean, boolean) IS 'Changes which columns are logged, from now on, and what is refused or kept; returns the number of the version in force.';
COMMENT ON COLUMN @extschema@.verification_logs.find_by_hash IS 'The log is to find leaf hashes fast: batches extend merkle_hash_index.';
COMMENT ON COLUMN @extschema@.verification_logs.origin IS 'The log''s name in checkpoints; NULL until it has one.';
COMMENT ON COLUMN @extschema@.verification_logs.checkpoint_interval IS 'How often the background worker signs a checkpoint of what is new; NULL: never.';
COMMENT ON TABLE @extschema@.merkle_hash_index IS 'Where leaf hashes are: one row for each 16,384 entries of a log with find_by_hash.';
COMMENT ON COLUMN @extschema@.merkle_hash_index.hashes IS 'For each entry the first four bytes of its leaf hash and its place among the 16,384 in two, sorted.';
COMMENT ON FUNCTION @extschema@.find_leaf(text, bytea) IS 'The leaf indexes of the entries with a leaf hash.';
COMMENT ON FUNCTION @extschema@.has_leaf(text, bytea) IS 'Whether the log has an entry with a leaf hash.';
COMMENT ON FUNCTION @extschema@.find_root(text, bytea) IS 'The tree size at which a tree head of the log has this root; NULL if none has.';
COMMENT ON FUNCTION @extschema@.has_root(text, bytea) IS 'Whether a tree head of the log has this root.';
COMMENT ON FUNCTION @extschema@.inclusion_proof_by_hash(text, bytea, bigint) IS 'The proof that an entry is in the log, by its leaf hash: of several, the first.';
COMMENT ON FUNCTION @extschema@.consistency_proof_by_root(text, bytea, bigint) IS 'The proof that the log only grew since a tree head, by the root of that.';
COMMENT ON FUNCTION @extschema@.log_entries(text, bigint, bigint) IS 'The entries from one leaf index up to another, in order; keys and leaf data for those who may read the source.';
COMMENT ON FUNCTION @extschema@.entry_bundles(text, bigint, bigint) IS 'The same 256 at a time: their leaf hashes, and their leaf data as an entry bundle of C2SP tlog-tiles, in which an entry of length 0 stands for leaf data that are not kept or not shown.';

-- A table as it was, and what happened to it.

CREATE FUNCTION @extschema@.table_at(
    log          text,
    source_table regclass,
    tree_size    bigint DEFAULT NULL
) RETURNS TABLE (
    leaf_index bigint,
    source_key text,
    row_data   jsonb
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'table_at_wrapper';

CREATE FUNCTION @extschema@.table_at(
    log          text,
    source_table regclass,
    at           timestamptz
) RETURNS TABLE (
    leaf_index bigint,
    source_key text,
    row_data   jsonb
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'table_at_time_wrapper';

CREATE FUNCTION @extschema@.table_at(
    log          text,
    source_table regclass,
    size_or_time text
) RETURNS TABLE (
    leaf_index bigint,
    source_key text,
    row_data   jsonb
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'table_at_text_wrapper';

CREATE FUNCTION @extschema@.changes(
    log          text,
    source_table regclass,
    from_size    bigint DEFAULT 0,
    to_size      bigint DEFAULT NULL
) RETURNS TABLE (
    leaf_index       bigint,
    operation        text,
    source_key       text,
    row_data         jsonb,
    transaction_id   text,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    role_name        text,
    context          jsonb,
    statement        text,
    statement_bytes  bigint
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'changes_wrapper';

CREATE FUNCTION @extschema@.changes(
    log          text,
    source_table regclass,
    from_time    timestamptz,
    to_time      timestamptz DEFAULT NULL
) RETURNS TABLE (
    leaf_index       bigint,
    operation        text,
    source_key       text,
    row_data         jsonb,
    transaction_id   text,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    role_name        text,
    context          jsonb,
    statement        text,
    statement_bytes  bigint
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'changes_between_times_wrapper';

CREATE FUNCTION @extschema@.changes(
    log               text,
    source_table      regclass,
    from_size_or_time text,
    to_size_or_time   text DEFAULT NULL
) RETURNS TABLE (
    leaf_index       bigint,
    operation        text,
    source_key       text,
    row_data         jsonb,
    transaction_id   text,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    role_name        text,
    context          jsonb,
    statement        text,
    statement_bytes  bigint
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'changes_between_texts_wrapper';

CREATE FUNCTION @extschema@.row_diff(
    before jsonb,
    after  jsonb
) RETURNS TABLE (
    column_name text,
    old_value   jsonb,
    new_value   jsonb
)
IMMUTABLE PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE sql
AS $$
    SELECT COALESCE(o.key, n.key), o.value, n.value
      FROM pg_catalog.jsonb_each(before) o
      FULL JOIN pg_catalog.jsonb_each(after) n ON n.key OPERATOR(pg_catalog.=) o.key
     WHERE o.value IS DISTINCT FROM n.value
     ORDER BY 1
$$;

COMMENT ON FUNCTION @extschema@.table_at(text, regclass, bigint) IS 'The rows of a table as the log had them with so many entries, or as it has them: leaf index of the row''s latest entry, key and row. The row is NULL where it was redacted.';
COMMENT ON FUNCTION @extschema@.table_at(text, regclass, timestamptz) IS 'The rows of a table as the log had them at a time, by the latest tree head before it.';
COMMENT ON FUNCTION @extschema@.table_at(text, regclass, text) IS 'The same; a number stands for a tree size, anything else for a time.';
COMMENT ON FUNCTION @extschema@.changes(text, regclass, bigint, bigint) IS 'What happened to the rows of a table between two tree sizes, in the order of the log.';
COMMENT ON FUNCTION @extschema@.changes(text, regclass, timestamptz, timestamptz) IS 'The same of what was logged between two times.';
COMMENT ON FUNCTION @extschema@.changes(text, regclass, text, text) IS 'The same; a number stands for a tree size, anything else for a time.';
COMMENT ON FUNCTION @extschema@.row_diff(jsonb, jsonb) IS 'The columns in which two versions of a row differ; NULL stands for a column that is not there.';

-- Checkpoints.

-- What was signed, for ever: the row stays when its log is dropped, so that no other log gets its origin.
CREATE TABLE @extschema@.merkle_checkpoint (
    log_id       integer     NOT NULL,
    tree_size    bigint      NOT NULL,
    root_hash    bytea       NOT NULL,
    origin       text        COLLATE "C" NOT NULL,
    note         text        NOT NULL,
    verifier_key text        NOT NULL,
    signed_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (log_id, tree_size)
) USING heap;

CREATE INDEX merkle_checkpoint_origin ON @extschema@.merkle_checkpoint (origin);

CREATE TABLE @extschema@.merkle_accepted_checkpoint (
    log_id      integer     NOT NULL,
    tree_size   bigint      NOT NULL,
    root_hash   bytea       NOT NULL,
    note        text        NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (log_id, tree_size, root_hash)
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_accepted_checkpoint', '');

-- What was signed is for everyone.
CREATE VIEW @extschema@.merkle_log_checkpoints AS
SELECT l.log_name,
       c.origin,
       c.tree_size,
       c.root_hash,
       c.note,
       c.verifier_key,
       c.signed_at
  FROM @extschema@.verification_logs l
  JOIN @extschema@.merkle_checkpoint c ON c.log_id OPERATOR(pg_catalog.=) l.log_id;

CREATE FUNCTION @extschema@.checkpoint(
    log text
) RETURNS text
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'checkpoint_wrapper';

CREATE FUNCTION @extschema@.checkpoint_key(
    log text
) RETURNS text
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'checkpoint_key_wrapper';

CREATE FUNCTION @extschema@.accept_checkpoint(
    note text
) RETURNS text
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'accept_checkpoint_wrapper';

CREATE FUNCTION @extschema@.add_cosignature(
    log          text,
    note         text,
    witness_keys text[]
) RETURNS integer
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'add_cosignature_wrapper';

REVOKE ALL ON FUNCTION
    @extschema@.checkpoint(text),
    @extschema@.checkpoint_key(text),
    @extschema@.accept_checkpoint(text),
    @extschema@.add_cosignature(text, text, text[])
FROM PUBLIC;

REVOKE ALL ON
    @extschema@.merkle_hash_index,
    @extschema@.merkle_checkpoint,
    @extschema@.merkle_accepted_checkpoint
FROM PUBLIC;

GRANT SELECT ON @extschema@.merkle_log_checkpoints TO PUBLIC;

COMMENT ON TABLE @extschema@.merkle_checkpoint IS 'Tree heads that were signed, each as a C2SP checkpoint; the rows of a dropped log stay.';
COMMENT ON COLUMN @extschema@.merkle_checkpoint.note IS 'The signed note: origin, size and root, the log''s signature, and cosignatures.';
COMMENT ON COLUMN @extschema@.merkle_checkpoint.verifier_key IS 'The key by which the log''s signature is verified.';
COMMENT ON TABLE @extschema@.merkle_accepted_checkpoint IS 'Checkpoints that are known to have been signed: nothing is signed that does not contain them.';
COMMENT ON VIEW @extschema@.merkle_log_checkpoints IS 'The checkpoints of all logs.';
COMMENT ON FUNCTION @extschema@.checkpoint(text) IS 'The log''s newest checkpoint, a signed note, after signing what is new; on a standby the newest that was signed.';
COMMENT ON FUNCTION @extschema@.checkpoint_key(text) IS 'The verifier key of the log''s checkpoints.';
COMMENT ON FUNCTION @extschema@.accept_checkpoint(text) IS 'Takes a checkpoint that is known outside, so that nothing is signed which does not contain it; returns contained, lost_tail, rewrote_history or pruned.';
COMMENT ON FUNCTION @extschema@.add_cosignature(text, text, text[]) IS 'Adds the signatures of a note that witnesses with these keys have made over a checkpoint of the log; returns how many.';

-- Proof bundles.

CREATE FUNCTION @extschema@.proof_bundle_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    "json"     text,
    cbor       bytea,
    tlog_proof text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'proof_bundle_of_wrapper';

CREATE FUNCTION @extschema@.proof_bundle_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    "json"     text,
    cbor       bytea,
    tlog_proof text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'proof_bundle_of_wrapper';

CREATE FUNCTION @extschema@.proof_bundle(
    log                 text,
    VARIADIC leaf_index bigint[]
) RETURNS TABLE (
    "json"     text,
    cbor       bytea,
    tlog_proof text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'proof_bundle_wrapper';

CREATE FUNCTION @extschema@.proof_bundle_at(
    log                 text,
    tree_size           bigint,
    VARIADIC leaf_index bigint[]
) RETURNS TABLE (
    "json"     text,
    cbor       bytea,
    tlog_proof text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'proof_bundle_at_wrapper';

CREATE FUNCTION @extschema@.nest_bundle(
    bundle bytea,
    hub    bytea
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'nest_bundle_wrapper';

CREATE FUNCTION @extschema@.nest_bundle(
    bundle text,
    hub    text
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'nest_bundle_text_wrapper';

CREATE FUNCTION @extschema@.verify_bundle(
    bundle       bytea,
    VARIADIC verifier_key text[]
) RETURNS TABLE (
    valid        boolean,
    origin       text,
    tree_size    bigint,
    leaf_indexes bigint[],
    hubs         text[],
    problem      text
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_bundle_wrapper';

CREATE FUNCTION @extschema@.verify_bundle(
    bundle       text,
    VARIADIC verifier_key text[]
) RETURNS TABLE (
    valid        boolean,
    origin       text,
    tree_size    bigint,
    leaf_indexes bigint[],
    hubs         text[],
    problem      text
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_bundle_text_wrapper';

COMMENT ON FUNCTION @extschema@.proof_bundle(text, bigint[]) IS 'What an outsider needs to check entries of the log: their proofs, and the newest checkpoint, as JSON, as CBOR, and as C2SP tlog-proof.';
COMMENT ON FUNCTION @extschema@.proof_bundle_of(text, regclass, "any") IS 'What an outsider needs to check a row''s latest entry, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.proof_bundle_of(text, regclass, text[]) IS 'What an outsider needs to check a row''s latest entry, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.proof_bundle_at(text, bigint, bigint[]) IS 'The same as proof_bundle, under the checkpoint of this size, which a hub may hold already.';
COMMENT ON FUNCTION @extschema@.nest_bundle(bytea, bytea) IS 'A bundle in two levels: that of rows of a log, and that of the entry of a hub which holds the log''s checkpoint; reads nothing.';
COMMENT ON FUNCTION @extschema@.nest_bundle(text, text) IS 'A bundle in two levels, of bundles as JSON: that of rows of a log, and that of the entry of a hub which holds the log''s checkpoint; reads nothing.';
COMMENT ON FUNCTION @extschema@.verify_bundle(bytea, text[]) IS 'Whether a proof bundle holds, by the verifier key of its log, and of each of its hubs; reads nothing.';
COMMENT ON FUNCTION @extschema@.verify_bundle(text, text[]) IS 'Whether a proof bundle as JSON holds, by the verifier key of its log, and of each of its hubs; reads nothing.';

-- Proofs of many rows at once.

CREATE FUNCTION @extschema@.inclusion_proofs_of_rows(
    log           text,
    source_table  regclass,
    VARIADIC keys "any"
) RETURNS TABLE (
    key_number bigint,
    leaf_index bigint,
    tree_size  bigint,
    leaf_hash  bytea,
    root_hash  bytea,
    path       bytea[]
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'inclusion_proofs_of_rows_wrapper';

CREATE FUNCTION @extschema@.multiproof_of_rows(
    log           text,
    source_table  regclass,
    VARIADIC keys "any"
) RETURNS TABLE (
    tree_size    bigint,
    root_hash    bytea,
    leaf_indexes bigint[],
    leaf_hashes  bytea[],
    nodes        bytea[]
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'multiproof_of_rows_wrapper';

CREATE FUNCTION @extschema@.proof_bundle_of_rows(
    log           text,
    source_table  regclass,
    VARIADIC keys "any"
) RETURNS TABLE (
    "json"     text,
    cbor       bytea,
    tlog_proof text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'proof_bundle_of_rows_wrapper';

CREATE FUNCTION @extschema@.multiproof(
    log          text,
    leaf_indexes bigint[],
    tree_size    bigint DEFAULT NULL
) RETURNS TABLE (
    tree_size    bigint,
    root_hash    bytea,
    leaf_indexes bigint[],
    leaf_hashes  bytea[],
    nodes        bytea[]
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'multiproof_wrapper';

CREATE FUNCTION @extschema@.verify_multiproof(
    leaf_hashes  bytea[],
    leaf_indexes bigint[],
    tree_size    bigint,
    nodes        bytea[],
    root_hash    bytea
) RETURNS boolean
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_multiproof_wrapper';

COMMENT ON FUNCTION @extschema@.inclusion_proofs_of_rows(text, regclass, "any") IS 'The proofs that rows are in the log, by an array of values for each column of the rows'' key: in order of leaf index, each with the number of its key; one with NULLs for a key that is not in the log.';
COMMENT ON FUNCTION @extschema@.multiproof(text, bigint[], bigint) IS 'One proof that entries are in the log, all at once: the nodes that do not follow from their leaf hashes.';
COMMENT ON FUNCTION @extschema@.multiproof_of_rows(text, regclass, "any") IS 'One proof that rows are in the log, all at once, by an array of values for each column of the rows'' key.';
COMMENT ON FUNCTION @extschema@.verify_multiproof(bytea[], bigint[], bigint, bytea[], bytea) IS 'True if one proof of several entries holds, which are given in order of leaf index; reads nothing.';
COMMENT ON FUNCTION @extschema@.proof_bundle_of_rows(text, regclass, "any") IS 'What an outsider needs to check the latest entries of rows, by an array of values for each column of the rows'' key.';

-- Long values of versions, and batches by pg_cron.

CREATE FUNCTION @extschema@.kept_value(
    log         text,
    leaf_index  bigint,
    column_name text
) RETURNS text
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'kept_value_wrapper';

CREATE FUNCTION @extschema@.run_scheduled_batch(
    log_id integer
) RETURNS bigint
STRICT PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'run_scheduled_batch_wrapper';

REVOKE ALL ON FUNCTION @extschema@.run_scheduled_batch(integer) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.kept_value(text, bigint, text) IS 'The text of a column in a version of a row that the log keeps, however long it is.';
COMMENT ON FUNCTION @extschema@.run_scheduled_batch(integer) IS 'What a pg_cron job calls: a batch of a log by its number, unless the log is disabled; returns how many entries it appended.';

-- Continuous verification.

-- How far the pass of continuous verification over each log is, and when the last one ended.
-- Not carried by pg_dump: a pass over a restored log begins anew, and may begin before all of it is there.
CREATE TABLE @extschema@.merkle_verification (
    log_id        integer     PRIMARY KEY,
    pass          bigint      NOT NULL DEFAULT 0,
    stage         text,
    state         text,
    entries       bigint      NOT NULL DEFAULT 0,
    size          bigint      NOT NULL DEFAULT 0,
    rows_read     bigint      NOT NULL DEFAULT 0,
    left_out      bigint      NOT NULL DEFAULT 0,
    started_at    timestamptz,
    read_at       timestamptz,
    ended_at      timestamptz,
    problem       text,
    problem_since timestamptz
) USING heap;

CREATE TABLE @extschema@.merkle_finding (
    finding_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_id          integer     NOT NULL,
    identity        bytea       NOT NULL,
    kind            text        NOT NULL,
    found_as        text        NOT NULL,
    source_table    text,
    source_key      text        COLLATE "C",
    leaf_index      bigint,
    expected        bytea,
    actual          bytea,
    detail          text        NOT NULL,
    pass            bigint      NOT NULL,
    first_seen      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_seen       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    resolved_at     timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    reason          text,
    is_suspected    boolean     NOT NULL DEFAULT false
) USING heap;

-- A finding has one row until a pass does not find it any more.
CREATE UNIQUE INDEX merkle_finding_unresolved ON @extschema@.merkle_finding (log_id, identity)
    WHERE resolved_at IS NULL;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_finding', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_finding_finding_id_seq', '');

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
       CASE WHEN o.name IS NULL THEN l.waiting_for END AS waiting_for,
       -- Its text can name rows.
       CASE WHEN o.name IS NOT NULL OR l.last_error IS NULL THEN NULL
            WHEN @extschema@.may_read_log(l.log_id) THEN l.last_error
            ELSE 'withheld: the text may name rows of sources that you may not read' END AS last_error,
       CASE WHEN o.name IS NULL THEN l.last_error_at END AS last_error_at,
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
       w.heartbeat AS worker_heartbeat,
       p.problems AS source_problems,
       o.name AS held_as_copy_of,
       (SELECT pg_catalog.count(*) FROM @extschema@.merkle_late_entry e
         WHERE e.log_id OPERATOR(pg_catalog.=) l.log_id) AS late_entries,
       l.verify_interval,
       v.ended_at AS last_verified_at,
       v.stage AS verify_stage,
       v.entries AS verified_entries,
       v.rows_read AS verified_rows,
       (SELECT pg_catalog.count(*) FROM @extschema@.merkle_finding f
         WHERE f.log_id OPERATOR(pg_catalog.=) l.log_id AND f.resolved_at IS NULL AND f.acknowledged_at IS NULL
           AND NOT f.is_suspected) AS open_findings,
       v.left_out AS findings_left_out,
       -- As last_error.
       CASE WHEN o.name IS NOT NULL OR v.problem IS NULL THEN NULL
            WHEN @extschema@.may_read_log(l.log_id) THEN v.problem
            ELSE 'withheld: the text may name rows of sources that you may not read' END AS verify_problem
  FROM @extschema@.verification_logs l
  LEFT JOIN @extschema@.merkle_verification v ON v.log_id OPERATOR(pg_catalog.=) l.log_id
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
  LEFT JOIN @extschema@.held_as_copy_of() o (name) ON true
  LEFT JOIN LATERAL @extschema@.background_worker() w ON true
  LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(s.source_table OPERATOR(pg_catalog.||) ': ' OPERATOR(pg_catalog.||) t.state,
                                                  '; ' ORDER BY s.source_id) AS problems
                       FROM @extschema@.merkle_source_state t
                       JOIN @extschema@.verification_sources s ON s.source_id OPERATOR(pg_catalog.=) t.source_id
                      WHERE s.log_id OPERATOR(pg_catalog.=) l.log_id AND s.removed_at IS NULL) p ON true;

CREATE FUNCTION @extschema@.findings(
    log text DEFAULT NULL
) RETURNS TABLE (
    finding         bigint,
    log_name        text,
    state           text,
    kind            text,
    source_table    text,
    source_key      text,
    leaf_index      bigint,
    expected        bytea,
    actual          bytea,
    detail          text,
    first_seen      timestamptz,
    last_seen       timestamptz,
    resolved_at     timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    reason          text
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'findings_wrapper';

CREATE FUNCTION @extschema@.acknowledge_finding(
    finding bigint,
    reason  text
) RETURNS void
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'acknowledge_finding_wrapper';

REVOKE ALL ON FUNCTION @extschema@.acknowledge_finding(bigint, text) FROM PUBLIC;
REVOKE ALL ON @extschema@.merkle_verification, @extschema@.merkle_finding FROM PUBLIC;

COMMENT ON COLUMN @extschema@.verification_logs.verify_interval IS 'How often the background worker begins to verify the log; NULL: never.';
COMMENT ON TABLE @extschema@.merkle_verification IS 'How far the pass of continuous verification over each log is.';
COMMENT ON COLUMN @extschema@.merkle_verification.stage IS 'What the pass reads now; NULL between two passes.';
COMMENT ON COLUMN @extschema@.merkle_verification.state IS 'What goes from one slice of the pass to the next, as JSON.';
COMMENT ON COLUMN @extschema@.merkle_verification.rows_read IS 'Rows and entries that all passes have read.';
COMMENT ON COLUMN @extschema@.merkle_verification.left_out IS 'Findings of the pass that there was no room for, with 1,000 of the log open.';
COMMENT ON COLUMN @extschema@.merkle_verification.problem IS 'Why the pass does not go on.';
COMMENT ON TABLE @extschema@.merkle_finding IS 'What continuous verification has found: open until a later pass does not find it, or somebody acknowledges it.';
COMMENT ON COLUMN @extschema@.merkle_finding.identity IS 'A hash of what makes it the same finding in the next pass.';
COMMENT ON COLUMN @extschema@.merkle_finding.found_as IS 'The kind that it had before something else that the pass found told better.';
COMMENT ON COLUMN @extschema@.merkle_finding.is_suspected IS 'A row of a source whose rows may come late: it is a finding when a pass still sees it after reconcile should have logged it.';
COMMENT ON COLUMN @extschema@.merkle_finding.pass IS 'The pass that has seen it last.';
COMMENT ON FUNCTION @extschema@.findings(text) IS 'What continuous verification has found in a log, or in all, when first and last, and who has looked at it; keys and content are shown to those who may read the sources.';
COMMENT ON FUNCTION @extschema@.acknowledge_finding(bigint, text) IS 'Says that somebody has looked at a finding, which is on record then and alarms no more.';

-- DDL on record.

-- How the table of each source is defined, as texts: who owns it, who may do what with it, and what runs when it is written.
CREATE TABLE @extschema@.verification_source_definitions (
    source_id    integer PRIMARY KEY,
    table_name   text,
    owner        text,
    privileges   text[]  NOT NULL,
    triggers     text[]  NOT NULL,
    rules        text[]  NOT NULL,
    row_security text[]  NOT NULL,
    columns      text[]  NOT NULL
) USING heap;

-- DDL on sources that event triggers have noted and no batch has put on record yet.
CREATE TABLE @extschema@.merkle_ddl_command (
    command_id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_id        integer     NOT NULL,
    transaction_id   xid8        NOT NULL,
    user_name        text        NOT NULL,
    role_name        text        NOT NULL,
    application_name text        NOT NULL,
    context          text,
    executed_at      timestamptz NOT NULL,
    command_tag      text        NOT NULL,
    objects          text        NOT NULL,
    statement        text,
    statement_bytes  bigint
) USING heap;

CREATE INDEX merkle_ddl_command_source ON @extschema@.merkle_ddl_command (source_id);

SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_definitions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_ddl_command', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_ddl_command_command_id_seq', '');

CREATE FUNCTION @extschema@.note_ddl_command() RETURNS event_trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'note_ddl_command_wrapper';

CREATE FUNCTION @extschema@.record_ddl(
    enable boolean DEFAULT true
) RETURNS boolean
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'record_ddl_wrapper';

REVOKE ALL ON FUNCTION @extschema@.note_ddl_command(), @extschema@.record_ddl(boolean) FROM PUBLIC;
REVOKE ALL ON @extschema@.verification_source_definitions, @extschema@.merkle_ddl_command FROM PUBLIC;

COMMENT ON TABLE @extschema@.verification_source_definitions IS 'How the table of each source is defined, as batches last found it; without a name, a table that was dropped.';
COMMENT ON COLUMN @extschema@.verification_source_definitions.row_security IS 'Whether row-level security is enabled and forced, and the policies.';
COMMENT ON TABLE @extschema@.merkle_ddl_command IS 'DDL on sources that the event triggers of record_ddl have noted, until a batch puts it on record.';
COMMENT ON COLUMN @extschema@.merkle_ddl_command.statement IS 'The statement that the client sent, or its beginning; statement_bytes is the length of the whole.';
COMMENT ON FUNCTION @extschema@.note_ddl_command() IS 'What the event triggers call that record_ddl makes.';
COMMENT ON FUNCTION @extschema@.record_ddl(boolean) IS 'Makes event triggers that note who runs which DDL on sources, or drops them; returns whether that changed anything.';

-- Rows that are retired.

-- Which rows may be gone from a source: those with an entry of its in a range of the log.
CREATE TABLE @extschema@.verification_source_retirements (
    source_id       integer     NOT NULL,
    from_leaf_index bigint      NOT NULL,
    to_leaf_index   bigint      NOT NULL,
    entries         bigint      NOT NULL,
    retired_before  text        NOT NULL,
    retired_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (source_id, from_leaf_index)
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_retirements', '');

-- The value has the type of the order column, or one that is written as one of its.
CREATE FUNCTION @extschema@.retire_rows(
    log          text,
    source_table regclass,
    before       "any"
) RETURNS TABLE (
    retired  bigint,
    left_out bigint
)
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'retire_rows_wrapper';

CREATE FUNCTION @extschema@.retire_rows(
    log          text,
    source_table regclass,
    before       text
) RETURNS TABLE (
    retired  bigint,
    left_out bigint
)
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'retire_rows_wrapper';

REVOKE ALL ON FUNCTION @extschema@.retire_rows(text, regclass, "any"), @extschema@.retire_rows(text, regclass, text) FROM PUBLIC;
REVOKE ALL ON @extschema@.verification_source_retirements FROM PUBLIC;

COMMENT ON TABLE @extschema@.verification_source_retirements IS 'Ranges of entries of rows that were retired: their source need not have them any more.';
COMMENT ON COLUMN @extschema@.verification_source_retirements.retired_before IS 'The order value before which rows were retired.';
COMMENT ON FUNCTION @extschema@.retire_rows(text, regclass, "any") IS 'Lets the rows with a lower order value be deleted from their source, if they are what was logged and the log keeps them; returns how many, and how many were left out.';
COMMENT ON FUNCTION @extschema@.retire_rows(text, regclass, text) IS 'The same, with the order value as a text.';

-- Ranges of entries whose keys are committed in an index: the entry at leaf_index says so.
CREATE TABLE @extschema@.merkle_sealed_range (
    log_id          integer NOT NULL,
    from_leaf_index bigint  NOT NULL,
    to_leaf_index   bigint  NOT NULL,
    leaf_index      bigint  NOT NULL,
    keys            bigint  NOT NULL,
    root_hash       bytea   NOT NULL,
    index_root      bytea   NOT NULL,
    secret          bytea   NOT NULL,
    PRIMARY KEY (log_id, from_leaf_index)
) USING heap;

-- The indexes of these ranges: each row 256 keys, sorted by their hashes, with their entries.
CREATE TABLE @extschema@.merkle_sealed_key (
    log_id          integer NOT NULL,
    from_leaf_index bigint  NOT NULL,
    run             integer NOT NULL,
    first_key       bytea   NOT NULL,
    root_hash       bytea   NOT NULL,
    keys            bytea   NOT NULL,
    PRIMARY KEY (log_id, from_leaf_index, run)
) USING heap;

ALTER TABLE @extschema@.merkle_sealed_key ALTER COLUMN keys SET STORAGE EXTERNAL;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_sealed_range', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_sealed_key', '');

CREATE FUNCTION @extschema@.seal_range(
    log   text,
    up_to bigint DEFAULT NULL
) RETURNS TABLE (
    from_leaf_index bigint,
    to_leaf_index   bigint,
    leaf_index      bigint,
    keys            bigint,
    index_root      bytea
)
PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'seal_range_wrapper';

CREATE FUNCTION @extschema@.sealed_ranges(
    log text
) RETURNS TABLE (
    from_leaf_index bigint,
    to_leaf_index   bigint,
    leaf_index      bigint,
    keys            bigint,
    root_hash       bytea,
    index_root      bytea,
    secret          bytea
)
STABLE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'sealed_ranges_wrapper';

CREATE FUNCTION @extschema@.absence_proof(
    log             text,
    source_table    regclass,
    key             text,
    from_leaf_index bigint DEFAULT NULL,
    to_leaf_index   bigint DEFAULT NULL
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'absence_proof_wrapper';

CREATE FUNCTION @extschema@.absence_proof_of(
    log          text,
    source_table regclass,
    VARIADIC key "any"
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'absence_proof_of_wrapper';

CREATE FUNCTION @extschema@.absence_proof_of(
    log          text,
    source_table regclass,
    VARIADIC key text[]
) RETURNS TABLE (
    "json" text,
    cbor   bytea
)
STABLE PARALLEL UNSAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'absence_proof_of_wrapper';

CREATE FUNCTION @extschema@.verify_absence(
    proof bytea,
    VARIADIC verifier_key text[]
) RETURNS TABLE (
    valid           boolean,
    origin          text,
    tree_size       bigint,
    source_table    text,
    key             text[],
    from_leaf_index bigint,
    to_leaf_index   bigint,
    leaf_indexes    bigint[],
    problem         text
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_absence_wrapper';

CREATE FUNCTION @extschema@.verify_absence(
    proof text,
    VARIADIC verifier_key text[]
) RETURNS TABLE (
    valid           boolean,
    origin          text,
    tree_size       bigint,
    source_table    text,
    key             text[],
    from_leaf_index bigint,
    to_leaf_index   bigint,
    leaf_indexes    bigint[],
    problem         text
)
IMMUTABLE STRICT PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
LANGUAGE c
AS 'MODULE_PATHNAME', 'verify_absence_text_wrapper';

REVOKE ALL ON FUNCTION @extschema@.seal_range(text, bigint) FROM PUBLIC;
REVOKE ALL ON @extschema@.merkle_sealed_range, @extschema@.merkle_sealed_key FROM PUBLIC;

COMMENT ON TABLE @extschema@.merkle_sealed_range IS 'Sealed ranges of entries: their keys are committed in an index, whose root is in an entry of the log.';
COMMENT ON COLUMN @extschema@.merkle_sealed_range.leaf_index IS 'The entry that seals the range.';
COMMENT ON COLUMN @extschema@.merkle_sealed_range.keys IS 'How many keys the index has.';
COMMENT ON COLUMN @extschema@.merkle_sealed_range.root_hash IS 'The root of the log''s tree of to_leaf_index entries, with which the hashes of the keys are salted.';
COMMENT ON COLUMN @extschema@.merkle_sealed_range.index_root IS 'The root of the tree of the index.';
COMMENT ON COLUMN @extschema@.merkle_sealed_range.secret IS 'What blinds the leaves of the index, so that a proof does not tell of other keys than its own.';
COMMENT ON TABLE @extschema@.merkle_sealed_key IS 'The indexes of sealed ranges, 256 keys a row.';
COMMENT ON COLUMN @extschema@.merkle_sealed_key.first_key IS 'The hash of the first key of the run.';
COMMENT ON COLUMN @extschema@.merkle_sealed_key.root_hash IS 'The root of the tree of the run''s leaves.';
COMMENT ON COLUMN @extschema@.merkle_sealed_key.keys IS 'Of each key its hash, the number of its entries in four bytes, and their leaf indexes in eight bytes each.';
COMMENT ON FUNCTION @extschema@.seal_range(text, bigint) IS 'Seals the entries of a log, or those before a leaf index, from where the last sealed range ends: commits the keys that they have. Returns the ranges; none when all is sealed.';
COMMENT ON FUNCTION @extschema@.sealed_ranges(text) IS 'The sealed ranges of a log; what blinds their indexes is shown to those who may read all its sources.';
COMMENT ON FUNCTION @extschema@.absence_proof(text, regclass, text, bigint, bigint) IS 'The proof of which entries a row has in sealed ranges of a log, and that it has no others there: of none, that it is absent. As JSON and as CBOR.';
COMMENT ON FUNCTION @extschema@.absence_proof_of(text, regclass, "any") IS 'The proof of which entries a row has in all sealed ranges of a log, and that it has no others there, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.absence_proof_of(text, regclass, text[]) IS 'The proof of which entries a row has in all sealed ranges of a log, and that it has no others there, by the values of the row''s key.';
COMMENT ON FUNCTION @extschema@.verify_absence(bytea, text[]) IS 'Whether an absence proof holds, by the verifier key of its log, and which entries the key has; reads nothing.';
COMMENT ON FUNCTION @extschema@.verify_absence(text, text[]) IS 'Whether an absence proof as JSON holds, by the verifier key of its log, and which entries the key has; reads nothing.';

-- What ALTER DEFAULT PRIVILEGES has given to others is not meant for these either.
DO $$
DECLARE
    revoke text;
BEGIN
    FOR revoke IN
        SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
                                 pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)))
          FROM (SELECT c.relowner, c.relacl, 'TABLE', c.oid::pg_catalog.regclass::pg_catalog.text
                  FROM pg_catalog.pg_class c
                 WHERE c.relnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
                   AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY['merkle_hash_index', 'merkle_checkpoint',
                           'merkle_accepted_checkpoint', 'merkle_log_checkpoints', 'merkle_verification',
                           'merkle_finding', 'merkle_finding_finding_id_seq', 'verification_source_definitions',
                           'verification_source_retirements', 'merkle_sealed_range', 'merkle_sealed_key',
                           'merkle_ddl_command', 'merkle_ddl_command_command_id_seq']::pg_catalog.name[])
                UNION ALL
                SELECT p.proowner, p.proacl, 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text
                  FROM pg_catalog.pg_proc p
                 WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
                   AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[
                           'inclusion_proof_of', 'wait_for_inclusion_of', 'history_of', 'verify_row_of',
                           'proof_bundle_of', 'redact_row_of', 'find_leaf', 'has_leaf',
                           'find_root', 'has_root', 'inclusion_proof_by_hash', 'consistency_proof_by_root',
                           'log_entries', 'entry_bundles', 'table_at', 'changes', 'row_diff', 'checkpoint', 'checkpoint_key', 'accept_checkpoint',
                           'add_cosignature', 'proof_bundle', 'proof_bundle_at', 'nest_bundle', 'verify_bundle',
                           'inclusion_proofs_of_rows', 'multiproof', 'multiproof_of_rows', 'verify_multiproof', 'proof_bundle_of_rows',
                           'kept_value', 'run_scheduled_batch', 'findings',
                           'acknowledge_finding', 'note_ddl_command', 'record_ddl', 'retire_rows', 'seal_range', 'sealed_ranges',
                           'absence_proof', 'absence_proof_of', 'verify_absence']::pg_catalog.name[])) o (owner, acl, kind, name)
         CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
         WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner AND a.grantee OPERATOR(pg_catalog.<>) 0
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$$;
