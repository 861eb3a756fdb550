-- What differs between two versions of a row.

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
