-- Reading is for everyone: roots, proofs and status show hashes only, and what shows keys or content
-- (leaf_data, proofs by key, verify_log, texts of errors) asks whether the caller may read the source
-- (may_read_source). Writing is for whom it is granted to.

-- What ALTER DEFAULT PRIVILEGES has given to others is not meant for these objects.
DO $$
DECLARE
    revoke text;
BEGIN
    FOR revoke IN
        SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
                                 CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END)
          FROM (SELECT c.tableoid, c.oid, c.relowner, c.relacl,
                       CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                       c.oid::pg_catalog.regclass::pg_catalog.text
                  FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v', 'S']::pg_catalog."char"[])
                UNION ALL
                SELECT p.tableoid, p.oid, p.proowner, p.proacl, 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text
                  FROM pg_catalog.pg_proc p) o (class, oid, owner, acl, kind, name)
          JOIN pg_catalog.pg_depend d
            ON d.classid OPERATOR(pg_catalog.=) o.class AND d.objid OPERATOR(pg_catalog.=) o.oid
           AND d.deptype OPERATOR(pg_catalog.=) 'e'
           AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
          JOIN pg_catalog.pg_extension e
            ON e.oid OPERATOR(pg_catalog.=) d.refobjid AND e.extname OPERATOR(pg_catalog.=) 'merkle_log'
         CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
          LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
         WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
           -- Functions are for everyone but those that are named below.
           AND (o.kind OPERATOR(pg_catalog.<>) 'FUNCTION' OR a.grantee OPERATOR(pg_catalog.<>) 0)
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION
    @extschema@.create_log(text, integer, interval, interval, interval, boolean, text, interval, interval),
    @extschema@.alter_log(text, text, integer, interval, interval, interval, boolean, text, interval, interval),
    @extschema@.enable_log(text),
    @extschema@.disable_log(text),
    @extschema@.pause_log(text),
    @extschema@.resume_log(text),
    @extschema@.drop_log(text, boolean),
    @extschema@.add_source(text, regclass, text, text[], text[], text, text, boolean, boolean, boolean, boolean, boolean, boolean),
    @extschema@.alter_source(text, regclass, text[], text, boolean, boolean, boolean, boolean),
    @extschema@.remove_source(text, regclass),
    @extschema@.backfill(text, regclass),
    @extschema@.repair_capture(text, regclass),
    @extschema@.administration(text),
    @extschema@.capture_change(),
    @extschema@.refuse_change(),
    @extschema@.retire_rows(text, regclass, "any"),
    @extschema@.retire_rows(text, regclass, text),
    @extschema@.seal_range(text, bigint),
    @extschema@.note_ddl_command(),
    @extschema@.record_ddl(boolean),
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
    @extschema@.acknowledge_finding(bigint, text),
    @extschema@.prune_log(text, bigint),
    @extschema@.merkle_log_warm(text),
    @extschema@.schedule_log(text, text),
    @extschema@.unschedule_log(text),
    @extschema@.run_scheduled_batch(integer),
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
    @extschema@.verification_source_definitions,
    @extschema@.verification_source_retirements,
    @extschema@.merkle_sealed_range,
    @extschema@.merkle_sealed_key,
    @extschema@.merkle_ddl_command,
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
    @extschema@.merkle_database,
    @extschema@.merkle_verification,
    @extschema@.merkle_finding
FROM PUBLIC;

GRANT SELECT ON
    @extschema@.merkle_log_status,
    @extschema@.merkle_log_progress,
    @extschema@.merkle_log_leaves,
    @extschema@.merkle_log_tiles,
    @extschema@.merkle_log_checkpoints
TO PUBLIC;
GRANT SELECT ON @extschema@.merkle_log_sources, @extschema@.merkle_log_coverage TO pg_monitor;
GRANT EXECUTE ON FUNCTION
    @extschema@.administration(text),
    @extschema@.coverage_holes(integer),
    @extschema@.merkle_log_health(),
    @extschema@.merkle_log_metrics()
TO pg_monitor;
