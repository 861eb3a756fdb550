-- Reading is for everyone: roots, proofs and status show hashes only, and the functions that show
-- keys or content (leaf_data, proofs by key, verify_log) ask for SELECT on the source. Writing is
-- for whom it is granted to.

REVOKE ALL ON FUNCTION
    @extschema@.create_log(text, integer, interval),
    @extschema@.alter_log(text, text, integer, interval),
    @extschema@.enable_log(text),
    @extschema@.disable_log(text),
    @extschema@.drop_log(text, boolean),
    @extschema@.add_source(text, regclass, text, text[], text[], text, text),
    @extschema@.alter_source(text, regclass, text[], text),
    @extschema@.remove_source(text, regclass),
    @extschema@.process_next_batch(text, boolean),
    @extschema@.reconcile(text)
FROM PUBLIC;

REVOKE ALL ON
    @extschema@.verification_logs,
    @extschema@.verification_sources,
    @extschema@.verification_source_versions,
    @extschema@.verification_source_columns,
    @extschema@.merkle_log,
    @extschema@.merkle_tile,
    @extschema@.merkle_tree_head
FROM PUBLIC;

GRANT SELECT ON @extschema@.merkle_log_status, @extschema@.merkle_log_progress TO PUBLIC;
GRANT SELECT ON @extschema@.merkle_log_sources TO pg_monitor;
