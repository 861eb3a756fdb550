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

-- Whoever may create objects in the extension's schema could put operators and functions there for which
-- others mistake the server's, and tables where the extension looks for its own.
DO $$
DECLARE
    others pg_catalog.text;
BEGIN
    SELECT pg_catalog.string_agg(CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                                      ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, ', ')
      INTO others
      FROM pg_catalog.pg_namespace n,
           LATERAL pg_catalog.aclexplode(n.nspacl) a
      LEFT JOIN pg_catalog.pg_authid r ON r.oid OPERATOR(pg_catalog.=) a.grantee
     WHERE n.oid OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
       AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
       AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
       AND r.rolsuper IS NOT TRUE;
    IF others IS NOT NULL THEN
        RAISE EXCEPTION 'schema "%" cannot hold merkle_log: objects can also be created in it by %', '@extschema@', others
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = pg_catalog.format(
                      'Run CREATE SCHEMA merkle_log; CREATE EXTENSION merkle_log SCHEMA merkle_log; or first REVOKE CREATE ON SCHEMA %s FROM %s.',
                      '@extschema@', others);
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
    order_domain  text        CHECK (order_domain OPERATOR(pg_catalog.=) ANY (ARRAY['time', 'number', 'uuid', 'arrival'])),
    batch_size    integer     CHECK (batch_size OPERATOR(pg_catalog.>) 0),
    settle        interval    NOT NULL CHECK (settle OPERATOR(pg_catalog.>=) interval '0'),
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_error    text,
    last_error_at timestamptz,
    waiting_for   text,
    paused        boolean     NOT NULL DEFAULT false,
    run_interval  interval    CHECK (run_interval OPERATOR(pg_catalog.>) interval '0'),
    reconcile_interval interval CHECK (reconcile_interval OPERATOR(pg_catalog.>=) interval '0'),
    pruned_to     bigint      NOT NULL DEFAULT 0,
    find_by_hash  boolean     NOT NULL DEFAULT false,
    origin        text        COLLATE "C" UNIQUE,
    checkpoint_interval interval CHECK (checkpoint_interval OPERATOR(pg_catalog.>) interval '0'),
    verify_interval interval DEFAULT '1 day' CHECK (verify_interval OPERATOR(pg_catalog.>) interval '0')
) USING heap;

-- The administration log, which exists from the beginning. Its row is the same in every database, so a dump
-- does not carry it, only its entries.
INSERT INTO @extschema@.verification_logs (log_id, log_name, order_domain, settle)
    OVERRIDING SYSTEM VALUE VALUES (0, 'merkle_log_administration', 'arrival', '0');

CREATE TABLE @extschema@.verification_sources (
    source_id    integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_id       integer     NOT NULL,
    source_table text        NOT NULL,
    relation     regclass    NOT NULL,
    bound_to     text        NOT NULL,
    capture      text        NOT NULL CHECK (capture OPERATOR(pg_catalog.=) ANY (ARRAY['watermark', 'trigger'])),
    order_column text,
    key_columns  text[]      NOT NULL,
    columns      text[],
    hash_column  text,
    watermark    text[],
    added_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    removed_at   timestamptz,
    append_only  boolean     NOT NULL DEFAULT false,
    allow_truncate  boolean  NOT NULL DEFAULT false,
    store_leaf_data boolean  NOT NULL DEFAULT false,
    salted       boolean     NOT NULL DEFAULT false,
    backfill     text[],
    pruned_order text,
    complete     boolean     NOT NULL DEFAULT true,
    key_equality text,
    logged_ahead text,
    backfilled   boolean     NOT NULL DEFAULT false,
    late_accepted boolean    NOT NULL DEFAULT true,
    record_statement boolean NOT NULL DEFAULT false,
    CHECK (capture OPERATOR(pg_catalog.=) 'trigger' OR order_column IS NOT NULL)
) USING heap;

CREATE UNIQUE INDEX verification_sources_relation
    ON @extschema@.verification_sources (log_id, relation) WHERE removed_at IS NULL;

CREATE TABLE @extschema@.verification_source_versions (
    source_id       integer     NOT NULL,
    version         integer     NOT NULL,
    from_leaf_index bigint      NOT NULL,
    hash_column     text,
    change          text        NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (source_id, version)
) USING heap;

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
) USING heap;

CREATE TABLE @extschema@.merkle_log (
    log_id      integer NOT NULL,
    source_id   integer NOT NULL,
    leaf_index  bigint  NOT NULL,
    source_key  text    COLLATE "C" NOT NULL,
    order_value text    COLLATE "C",
    leaf_hash   bytea   NOT NULL,
    key_hash    bigint,
    PRIMARY KEY (log_id, leaf_index)
) USING heap;

-- Entries whose key is their order value have no hash: they are found through merkle_order_index.
CREATE INDEX merkle_log_key_hash ON @extschema@.merkle_log (key_hash)
    WHERE key_hash IS NOT NULL;

CREATE TABLE @extschema@.merkle_order_index (
    source_id  integer NOT NULL,
    order_key  bytea   NOT NULL,
    leaf_index bigint  NOT NULL,
    PRIMARY KEY (source_id, order_key)
) USING heap;

CREATE TABLE @extschema@.merkle_tile (
    log_id     integer  NOT NULL,
    level      smallint NOT NULL CHECK (level OPERATOR(pg_catalog.>=) 0),
    tile_index bigint   NOT NULL,
    hashes     bytea    NOT NULL,
    PRIMARY KEY (log_id, level, tile_index)
) USING heap;

-- Hashes do not compress; EXTERNAL lets one hash be read without the other 255.
ALTER TABLE @extschema@.merkle_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE TABLE @extschema@.merkle_tree_head (
    log_id     integer     NOT NULL,
    tree_size  bigint      NOT NULL,
    root_hash  bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    duration   interval,
    metadata   bytea,
    PRIMARY KEY (log_id, tree_size)
) USING heap;

CREATE INDEX merkle_tree_head_root_hash ON @extschema@.merkle_tree_head (root_hash);

-- Each row: the first bytes of 16,384 leaf hashes, sorted, each with the entry's place. Read in slices.
CREATE TABLE @extschema@.merkle_hash_index (
    log_id  integer NOT NULL,
    run     bigint  NOT NULL,
    entries integer NOT NULL,
    hashes  bytea   NOT NULL,
    PRIMARY KEY (log_id, run)
) USING heap;

ALTER TABLE @extschema@.merkle_hash_index ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE TABLE @extschema@.merkle_leaf_data (
    log_id     integer NOT NULL,
    leaf_index bigint  NOT NULL,
    salt       bytea,
    leaf_data  bytea,
    erased_salt bytea,
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
    role_name        text,
    PRIMARY KEY (log_id, from_leaf_index)
) USING heap;

CREATE TABLE @extschema@.merkle_set_aside (
    source_id  integer     NOT NULL,
    key_hash   bigint      NOT NULL,
    source_key text        COLLATE "C" NOT NULL,
    problem    text        NOT NULL,
    since      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (source_id, key_hash)
) USING heap;

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
    early            bigint,
    ordered          boolean     NOT NULL DEFAULT true,
    payload          bytea,
    PRIMARY KEY (log_id, pending_id, part)
) USING heap WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

ALTER TABLE @extschema@.merkle_pending
    ALTER COLUMN keys SET STORAGE EXTERNAL,
    ALTER COLUMN leaves SET STORAGE EXTERNAL,
    ALTER COLUMN salts SET STORAGE EXTERNAL,
    ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE SEQUENCE @extschema@.merkle_pending_id;

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

-- The database that the logs are of, and those that they were of before.
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

-- Not carried by pg_dump: what was wrong with a source there says nothing about the restored one.
CREATE TABLE @extschema@.merkle_source_state (
    source_id integer     PRIMARY KEY,
    state     text        NOT NULL,
    detail    text        NOT NULL,
    mend      text        NOT NULL,
    since     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) USING heap;

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

SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_logs', 'WHERE log_id OPERATOR(pg_catalog.<>) 0');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_logs_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_sources', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_sources_source_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_versions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_columns', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_log', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_order_index', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_tile', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_tree_head', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_hash_index', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_accepted_checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_leaf_data', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_statement', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_set_aside', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_late_entry', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_partitions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_database', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_retirements', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_sealed_range', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_sealed_key', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.verification_source_definitions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_ddl_command', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_ddl_command_command_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_redacted_key', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_pending', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_pending_id', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_finding', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.merkle_finding_finding_id_seq', '');
