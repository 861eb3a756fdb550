DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION 'merkle_log needs a database with encoding UTF8, and this one has %',
                        pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Run CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
END
$$;

-- The tables of merkle_log. All are configuration tables of the extension, so
-- that pg_dump carries their rows and a restored database goes on from there.
-- They have no foreign keys: a parallel restore loads them in any order, into
-- tables whose constraints CREATE EXTENSION has already made.

CREATE TABLE @extschema@.verification_logs (
    log_id        integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_name      text        COLLATE "C" NOT NULL UNIQUE,
    enabled       boolean     NOT NULL DEFAULT true,
    order_domain  text        CHECK (order_domain IN ('time', 'number', 'uuid', 'arrival')),
    batch_size    integer     CHECK (batch_size > 0),
    settle        interval    NOT NULL CHECK (settle >= interval '0'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_error    text,
    last_error_at timestamptz,
    waiting_for   text,
    paused        boolean     NOT NULL DEFAULT false,
    run_interval  interval    CHECK (run_interval > interval '0'),
    reconcile_interval interval CHECK (reconcile_interval >= interval '0'),
    pruned_to     bigint      NOT NULL DEFAULT 0
);

CREATE TABLE @extschema@.verification_sources (
    source_id    integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_id       integer     NOT NULL,
    source_table text        NOT NULL,
    relation     regclass    NOT NULL,
    bound_to     text        NOT NULL,
    capture      text        NOT NULL CHECK (capture IN ('watermark', 'trigger')),
    order_column text,
    key_columns  text[]      NOT NULL,
    columns      text[],
    hash_column  text,
    watermark    text[],
    added_at     timestamptz NOT NULL DEFAULT now(),
    removed_at   timestamptz,
    append_only  boolean     NOT NULL DEFAULT false,
    allow_truncate  boolean  NOT NULL DEFAULT false,
    store_leaf_data boolean  NOT NULL DEFAULT false,
    salted       boolean     NOT NULL DEFAULT false,
    backfill     text[],
    pruned_order text,
    complete     boolean     NOT NULL DEFAULT true,
    CHECK (capture = 'trigger' OR order_column IS NOT NULL)
);

CREATE UNIQUE INDEX verification_sources_relation
    ON @extschema@.verification_sources (log_id, relation) WHERE removed_at IS NULL;

CREATE TABLE @extschema@.verification_source_versions (
    source_id       integer     NOT NULL,
    version         integer     NOT NULL,
    from_leaf_index bigint      NOT NULL,
    hash_column     text,
    change          text        NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, version)
);

CREATE TABLE @extschema@.verification_source_columns (
    source_id   integer  NOT NULL,
    version     integer  NOT NULL,
    column_name text     NOT NULL,
    column_type text     NOT NULL,
    attnum      smallint,
    logged      boolean  NOT NULL,
    key_position    smallint,
    orders          boolean NOT NULL DEFAULT false,
    type_oid        oid,
    type_modifier   integer,
    type_definition jsonb,
    PRIMARY KEY (source_id, version, column_name)
);

CREATE TABLE @extschema@.merkle_log (
    log_id      integer NOT NULL,
    source_id   integer NOT NULL,
    leaf_index  bigint  NOT NULL,
    source_key  text    COLLATE "C" NOT NULL,
    order_value text    COLLATE "C",
    leaf_hash   bytea   NOT NULL,
    PRIMARY KEY (log_id, leaf_index)
);

-- Entries whose key is their order value are found through merkle_order_index.
CREATE INDEX merkle_log_source_key ON @extschema@.merkle_log (source_key, source_id)
    WHERE order_value IS NOT NULL;

CREATE TABLE @extschema@.merkle_order_index (
    source_id  integer NOT NULL,
    order_key  bytea   NOT NULL,
    leaf_index bigint  NOT NULL,
    PRIMARY KEY (source_id, order_key)
);

CREATE TABLE @extschema@.merkle_tile (
    log_id     integer  NOT NULL,
    level      smallint NOT NULL CHECK (level >= 0),
    tile_index bigint   NOT NULL,
    hashes     bytea    NOT NULL,
    PRIMARY KEY (log_id, level, tile_index)
);

-- Hashes do not compress; EXTERNAL lets one hash be read without the other 255.
ALTER TABLE @extschema@.merkle_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE TABLE @extschema@.merkle_tree_head (
    log_id     integer     NOT NULL,
    tree_size  bigint      NOT NULL,
    root_hash  bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration   interval,
    PRIMARY KEY (log_id, tree_size)
);

CREATE TABLE @extschema@.merkle_leaf_data (
    log_id     integer NOT NULL,
    leaf_index bigint  NOT NULL,
    salt       bytea,
    leaf_data  bytea,
    PRIMARY KEY (log_id, leaf_index)
);

CREATE TABLE @extschema@.merkle_statement (
    log_id           integer     NOT NULL,
    from_leaf_index  bigint      NOT NULL,
    entries          integer     NOT NULL CHECK (entries > 0),
    source_id        integer     NOT NULL,
    kind             text        NOT NULL,
    transaction_id   xid8        NOT NULL,
    user_name        text        NOT NULL,
    application_name text        NOT NULL,
    statement_at     timestamptz NOT NULL,
    PRIMARY KEY (log_id, from_leaf_index)
);

-- The queue of trigger capture. Written past the executor: its columns and their order are known to the
-- library. A transaction writes one row a log, or several where its changes do not fit a page. The columns from
-- source_id to salts, other than transaction_id and statement_at, are those of rows that version 0.3.0 wrote.
CREATE TABLE @extschema@.merkle_pending (
    log_id           integer     NOT NULL,
    pending_id       bigint      NOT NULL,
    source_id        integer,
    version          integer,
    columns          text[],
    kind             text,
    transaction_id   xid8        NOT NULL,
    user_name        text,
    application_name text,
    statement_at     timestamptz,
    keys             text[],
    whole            boolean,
    leaves           bytea[],
    salts            bytea[],
    part             integer     NOT NULL DEFAULT 0,
    changes          integer,
    taken            integer     NOT NULL DEFAULT 0,
    early            boolean     NOT NULL DEFAULT false,
    ordered          boolean     NOT NULL DEFAULT true,
    payload          bytea
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

ALTER TABLE @extschema@.merkle_pending
    ALTER COLUMN keys SET STORAGE EXTERNAL,
    ALTER COLUMN leaves SET STORAGE EXTERNAL,
    ALTER COLUMN salts SET STORAGE EXTERNAL,
    ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE INDEX merkle_pending_order ON @extschema@.merkle_pending (log_id, pending_id);

CREATE SEQUENCE @extschema@.merkle_pending_id;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_logs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_logs_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_sources', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_sources_source_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_versions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_columns', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_log', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_order_index', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_tile', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_tree_head', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_leaf_data', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_statement', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_pending', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_pending_id', '');
