-- From 0.3.0 to 0.4.0.

-- Capture.

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

-- Administration log and verification.

-- Sources and what is promised about them.
