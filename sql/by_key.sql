-- The functions that take a row's key as the application has it: one value a column, of any type that compares to
-- the column's. Each stands beside the function without _of, which takes the key as one text.
--
-- Each has two signatures. With "any" alone, a parameter whose type the client leaves to the server would have none;
-- with text[] alone, a number would need a cast. Where all values are texts, literals or such parameters, the server
-- chooses text[], otherwise "any".

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
