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
