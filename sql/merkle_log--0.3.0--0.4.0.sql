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
    ADD COLUMN early boolean NOT NULL DEFAULT false,
    ADD COLUMN ordered boolean NOT NULL DEFAULT true,
    ADD COLUMN payload bytea;

ALTER TABLE @extschema@.merkle_pending ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE INDEX merkle_pending_order ON @extschema@.merkle_pending (log_id, pending_id);

COMMENT ON COLUMN @extschema@.merkle_pending.pending_id IS 'Where the transaction stands in the queue; of rows that it wrote early, before that was known, its negated number.';
COMMENT ON COLUMN @extschema@.merkle_pending.part IS 'The number of the row among those of its transaction.';
COMMENT ON COLUMN @extschema@.merkle_pending.statement_at IS 'When the first statement began whose changes the row holds.';
COMMENT ON COLUMN @extschema@.merkle_pending.changes IS 'How many changes the row holds.';
COMMENT ON COLUMN @extschema@.merkle_pending.taken IS 'How many of the changes are logged.';
COMMENT ON COLUMN @extschema@.merkle_pending.early IS 'The transaction has written rows early, whose changes come first.';
COMMENT ON COLUMN @extschema@.merkle_pending.ordered IS 'False where the changes in the transaction''s rows, taken together, have to be put in the order in which they were made.';
COMMENT ON COLUMN @extschema@.merkle_pending.payload IS 'The changes: keys, leaves, and what they were captured with.';

-- Row triggers take the place of statement triggers. A table that is gone has none.
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
                                    pg_catalog.format('merkle_log_%s_applied', source.source_id)]::pg_catalog.name[])
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
    END LOOP;
END
$$;

-- Entries and their limits.

-- Privileges and views.

-- Administration log and verification.

-- Sources and what is promised about them.
