-- What an operator looks at first. Reading one's own log needs no more than SELECT on the view.

CREATE VIEW @extschema@.merkle_log_status AS
SELECT l.log_name,
       l.enabled,
       l.order_domain,
       l.batch_size,
       l.settle,
       (SELECT count(*) FROM @extschema@.verification_sources s
         WHERE s.log_id = l.log_id AND s.removed_at IS NULL) AS sources,
       COALESCE(h.tree_size, 0) AS tree_size,
       h.root_hash,
       h.created_at AS last_batch_at,
       l.waiting_for,
       l.last_error,
       l.last_error_at
  FROM @extschema@.verification_logs l
  LEFT JOIN LATERAL (SELECT t.tree_size, t.root_hash, t.created_at
                       FROM @extschema@.merkle_tree_head t
                      WHERE t.log_id = l.log_id
                      ORDER BY t.tree_size DESC LIMIT 1) h ON true;

CREATE VIEW @extschema@.merkle_log_sources AS
SELECT l.log_name,
       s.source_table,
       s.relation,
       s.capture,
       s.order_column,
       s.key_columns,
       s.columns,
       s.hash_column,
       s.watermark,
       v.version,
       v.from_leaf_index AS version_from_leaf_index,
       v.change AS version_change,
       s.added_at,
       s.removed_at
  FROM @extschema@.verification_sources s
  JOIN @extschema@.verification_logs l USING (log_id)
  JOIN LATERAL (SELECT w.version, w.from_leaf_index, w.change
                  FROM @extschema@.verification_source_versions w
                 WHERE w.source_id = s.source_id
                 ORDER BY w.version DESC LIMIT 1) v ON true;

CREATE VIEW @extschema@.merkle_log_progress AS
SELECT r.pid,
       d.datname,
       r.command,
       l.log_name,
       r.rows_done,
       r.rows_total
  FROM @extschema@.running_commands() r
  JOIN pg_catalog.pg_database d ON d.oid = r.datid
  LEFT JOIN @extschema@.verification_logs l
    ON l.log_id = r.log_id AND d.datname = pg_catalog.current_database();
