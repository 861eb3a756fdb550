-- What the role of the messaging server needs of merkle_log. Run as a superuser, after CREATE EXTENSION
-- merkle_log, with psql: -v role=catbird
GRANT EXECUTE ON FUNCTION create_log, add_source, repair_capture, process_next_batch, prune_log TO :"role";
-- Who makes a partition of a captured table makes its triggers, which call these.
GRANT EXECUTE ON FUNCTION capture_change, refuse_change TO :"role";
-- To find, when a month is dropped, the first entry that stays.
GRANT SELECT ON merkle_log, verification_logs TO :"role";
