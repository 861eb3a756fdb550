-- Each operator and function is named with its schema, so that these views mean the same wherever they are
-- created, and whoever else may create objects there.

-- What an operator looks at first. Reading one's own log needs no more than SELECT on the view.

CREATE VIEW @extschema@.merkle_log_status AS
SELECT l.log_name,
       l.enabled,
       l.order_domain,
       l.batch_size,
       l.settle,
       (SELECT pg_catalog.count(*) FROM @extschema@.verification_sources s
         WHERE s.log_id OPERATOR(pg_catalog.=) l.log_id AND s.removed_at IS NULL) AS sources,
       COALESCE(h.tree_size, 0) AS tree_size,
       h.root_hash,
       h.created_at AS last_batch_at,
       CASE WHEN o.name IS NULL THEN l.waiting_for END AS waiting_for,
       -- Its text can name rows.
       CASE WHEN o.name IS NOT NULL OR l.last_error IS NULL THEN NULL
            WHEN @extschema@.may_read_log(l.log_id) THEN l.last_error
            ELSE 'withheld: the text may name rows of sources that you may not read' END AS last_error,
       CASE WHEN o.name IS NULL THEN l.last_error_at END AS last_error_at,
       l.paused,
       l.run_interval,
       l.reconcile_interval,
       l.pruned_to,
       g.rows AS lag_rows,
       g.seconds AS lag_seconds,
       h.tree_size OPERATOR(pg_catalog.-) COALESCE(b.tree_size, 0) AS last_batch_entries,
       h.duration AS last_batch_duration,
       (h.tree_size OPERATOR(pg_catalog.-) COALESCE(b.tree_size, 0))::pg_catalog.float8
           OPERATOR(pg_catalog./) CASE WHEN h.duration OPERATOR(pg_catalog.<>) '0'::pg_catalog.interval
                                       THEN EXTRACT(epoch FROM h.duration)::pg_catalog.float8 END AS entries_per_second,
       c.last_run_at,
       c.last_duration,
       c.next_run_at,
       c.last_reconciled_at,
       c.failures,
       c.batches,
       c.entries,
       c.errors,
       c.cache_hits,
       c.cache_misses,
       w.pid AS worker_pid,
       w.heartbeat AS worker_heartbeat,
       p.problems AS source_problems,
       o.name AS held_as_copy_of,
       (SELECT pg_catalog.count(*) FROM @extschema@.merkle_late_entry e
         WHERE e.log_id OPERATOR(pg_catalog.=) l.log_id) AS late_entries,
       l.verify_interval,
       v.ended_at AS last_verified_at,
       v.stage AS verify_stage,
       v.entries AS verified_entries,
       v.rows_read AS verified_rows,
       (SELECT pg_catalog.count(*) FROM @extschema@.merkle_finding f
         WHERE f.log_id OPERATOR(pg_catalog.=) l.log_id AND f.resolved_at IS NULL AND f.acknowledged_at IS NULL
           AND NOT f.is_suspected) AS open_findings,
       v.left_out AS findings_left_out,
       -- As last_error.
       CASE WHEN o.name IS NOT NULL OR v.problem IS NULL THEN NULL
            WHEN @extschema@.may_read_log(l.log_id) THEN v.problem
            ELSE 'withheld: the text may name rows of sources that you may not read' END AS verify_problem
  FROM @extschema@.verification_logs l
  LEFT JOIN @extschema@.merkle_verification v ON v.log_id OPERATOR(pg_catalog.=) l.log_id
  LEFT JOIN LATERAL (SELECT t.tree_size, t.root_hash, t.created_at, t.duration
                       FROM @extschema@.merkle_tree_head t
                      WHERE t.log_id OPERATOR(pg_catalog.=) l.log_id
                      ORDER BY t.tree_size DESC LIMIT 1) h ON true
  LEFT JOIN LATERAL (SELECT t.tree_size
                       FROM @extschema@.merkle_tree_head t
                      WHERE t.log_id OPERATOR(pg_catalog.=) l.log_id AND t.tree_size OPERATOR(pg_catalog.<) h.tree_size
                      ORDER BY t.tree_size DESC LIMIT 1) b ON true
  LEFT JOIN LATERAL @extschema@.log_lag(l.log_id) g ON true
  LEFT JOIN LATERAL @extschema@.log_counters(l.log_id) c ON true
  LEFT JOIN @extschema@.held_as_copy_of() o (name) ON true
  LEFT JOIN LATERAL @extschema@.background_worker() w ON true
  LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(s.source_table OPERATOR(pg_catalog.||) ': ' OPERATOR(pg_catalog.||) t.state,
                                                  '; ' ORDER BY s.source_id) AS problems
                       FROM @extschema@.merkle_source_state t
                       JOIN @extschema@.verification_sources s ON s.source_id OPERATOR(pg_catalog.=) t.source_id
                      WHERE s.log_id OPERATOR(pg_catalog.=) l.log_id AND s.removed_at IS NULL) p ON true;

CREATE VIEW @extschema@.merkle_log_sources AS
SELECT l.log_name,
       s.source_table,
       s.relation,
       s.capture,
       s.order_column,
       s.key_columns,
       s.columns,
       s.hash_column,
       -- Order values and keys of rows.
       CASE WHEN @extschema@.may_read_source(s.source_id) THEN s.watermark END AS watermark,
       v.version,
       v.from_leaf_index AS version_from_leaf_index,
       v.change AS version_change,
       s.added_at,
       s.removed_at,
       s.append_only,
       s.allow_truncate,
       s.store_leaf_data,
       s.salted,
       CASE WHEN @extschema@.may_read_source(s.source_id) THEN s.backfill END AS backfill,
       CASE WHEN s.removed_at IS NULL THEN COALESCE(t.state, 'ready') ELSE 'removed' END AS state,
       t.detail AS state_detail,
       t.mend AS state_mend,
       t.since AS state_since,
       s.record_statement
  FROM @extschema@.verification_sources s
  JOIN @extschema@.verification_logs l ON l.log_id OPERATOR(pg_catalog.=) s.log_id
  LEFT JOIN LATERAL (SELECT w.version, w.from_leaf_index, w.change
                       FROM @extschema@.verification_source_versions w
                      WHERE w.source_id OPERATOR(pg_catalog.=) s.source_id
                      ORDER BY w.version DESC LIMIT 1) v ON true
  LEFT JOIN @extschema@.merkle_source_state t ON t.source_id OPERATOR(pg_catalog.=) s.source_id;

CREATE VIEW @extschema@.merkle_log_progress AS
SELECT r.pid,
       d.datname,
       r.command,
       l.log_name,
       r.rows_done,
       r.rows_total
  FROM @extschema@.running_commands() r
  JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) r.datid
  LEFT JOIN @extschema@.verification_logs l
    ON l.log_id OPERATOR(pg_catalog.=) r.log_id
   AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

-- Reads every row of the sources that it is asked about: WHERE log_name = … saves the others.
CREATE VIEW @extschema@.merkle_log_coverage AS
SELECT l.log_name,
       s.source_table,
       h.relation::pg_catalog.regclass AS relation,
       h.problem,
       h.rows,
       h.mend
  FROM @extschema@.verification_sources s
  JOIN @extschema@.verification_logs l ON l.log_id OPERATOR(pg_catalog.=) s.log_id
  CROSS JOIN LATERAL @extschema@.coverage_holes(s.source_id) h
 WHERE s.removed_at IS NULL;

-- Hashes only, and so for everyone: what an outsider with any RFC 6962 implementation builds the tree from.
CREATE VIEW @extschema@.merkle_log_leaves AS
SELECT l.log_name,
       m.leaf_index,
       m.leaf_hash
  FROM @extschema@.verification_logs l
  JOIN @extschema@.merkle_log m ON m.log_id OPERATOR(pg_catalog.=) l.log_id;

-- Those above the leaf hashes, so that nobody need compute them.
CREATE VIEW @extschema@.merkle_log_tiles AS
SELECT l.log_name,
       t.level,
       t.tile_index,
       t.hashes
  FROM @extschema@.verification_logs l
  JOIN @extschema@.merkle_tile t ON t.log_id OPERATOR(pg_catalog.=) l.log_id
 WHERE t.level OPERATOR(pg_catalog.>) 0;

-- What was signed is for everyone.
CREATE VIEW @extschema@.merkle_log_checkpoints AS
SELECT l.log_name,
       c.origin,
       c.tree_size,
       c.root_hash,
       c.note,
       c.verifier_key,
       c.signed_at
  FROM @extschema@.verification_logs l
  JOIN @extschema@.merkle_checkpoint c ON c.log_id OPERATOR(pg_catalog.=) l.log_id;
