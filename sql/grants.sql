-- Reading is for everyone: roots, proofs and status show hashes only, and what shows keys or content
-- (leaf_data, proofs by key, verify_log, texts of errors) asks whether the caller may read the source
-- (may_read_source). Writing is for whom it is granted to.

REVOKE ALL ON FUNCTION
    @extschema@.create_log(text, integer, interval, interval, interval, boolean, text, interval),
    @extschema@.alter_log(text, text, integer, interval, interval, interval, boolean, text, interval),
    @extschema@.enable_log(text),
    @extschema@.disable_log(text),
    @extschema@.pause_log(text),
    @extschema@.resume_log(text),
    @extschema@.drop_log(text, boolean),
    @extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean),
    @extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean),
    @extschema@.remove_source(text, regclass),
    @extschema@.backfill(text, regclass),
    @extschema@.repair_capture(text, regclass),
    @extschema@.administration(text),
    @extschema@.capture_change(),
    @extschema@.refuse_change(),
    @extschema@.run_now(text),
    @extschema@.adopt_database(text),
    @extschema@.redact(text, bigint, text),
    @extschema@.redact_row(text, regclass, text, text),
    @extschema@.redact_row_of(text, regclass, text, "any"),
    @extschema@.redact_row_of(text, regclass, text, text[]),
    @extschema@.checkpoint(text),
    @extschema@.checkpoint_key(text),
    @extschema@.accept_checkpoint(text),
    @extschema@.add_cosignature(text, text, text[]),
    @extschema@.prune_log(text, bigint),
    @extschema@.merkle_log_warm(text),
    @extschema@.schedule_log(text, text),
    @extschema@.unschedule_log(text),
    @extschema@.coverage_holes(integer),
    @extschema@.merkle_log_health(),
    @extschema@.merkle_log_metrics(),
    @extschema@.process_next_batch(text, boolean),
    @extschema@.reconcile(text)
FROM PUBLIC;

REVOKE ALL ON
    @extschema@.verification_logs,
    @extschema@.verification_sources,
    @extschema@.verification_source_versions,
    @extschema@.verification_source_columns,
    @extschema@.merkle_log,
    @extschema@.merkle_order_index,
    @extschema@.merkle_tile,
    @extschema@.merkle_tree_head,
    @extschema@.merkle_hash_index,
    @extschema@.merkle_checkpoint,
    @extschema@.merkle_accepted_checkpoint,
    @extschema@.merkle_leaf_data,
    @extschema@.merkle_statement,
    @extschema@.merkle_set_aside,
    @extschema@.merkle_pending,
    @extschema@.merkle_source_state,
    @extschema@.merkle_redacted_key,
    @extschema@.merkle_late_entry,
    @extschema@.verification_source_partitions,
    @extschema@.merkle_database
FROM PUBLIC;

GRANT SELECT ON
    @extschema@.merkle_log_status,
    @extschema@.merkle_log_progress,
    @extschema@.merkle_log_leaves,
    @extschema@.merkle_log_checkpoints
TO PUBLIC;
GRANT SELECT ON @extschema@.merkle_log_sources, @extschema@.merkle_log_coverage TO pg_monitor;
GRANT EXECUTE ON FUNCTION
    @extschema@.administration(text),
    @extschema@.coverage_holes(integer),
    @extschema@.merkle_log_health(),
    @extschema@.merkle_log_metrics()
TO pg_monitor;
