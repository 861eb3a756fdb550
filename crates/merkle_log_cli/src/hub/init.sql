-- The tables of a hub (docs/hub.md): sources of a log, in which nothing is ever changed.
CREATE SCHEMA hub;
COMMENT ON SCHEMA hub IS 'Checkpoints of logs of other databases, as merkle-log hub pulls them.';

CREATE TABLE hub.checkpoints (
    origin      text        NOT NULL CHECK (origin <> ''),
    tree_size   bigint      NOT NULL CHECK (tree_size >= 0),
    root        bytea       NOT NULL CHECK (pg_catalog.octet_length(root) = 32),
    checkpoint  text        NOT NULL,
    -- The size of the checkpoint that this one was found to continue; -1 for the first.
    continues   bigint      NOT NULL CHECK (continues >= -1 AND continues < tree_size),
    pulled_from text        NOT NULL,
    pulled_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (origin, tree_size),
    -- Who has signed it, the program looks at whenever it reads a row.
    CONSTRAINT columns_are_those_of_the_checkpoint CHECK (pg_catalog.starts_with(checkpoint,
        origin OPERATOR(pg_catalog.||) E'\n' OPERATOR(pg_catalog.||) tree_size::pg_catalog.text OPERATOR(pg_catalog.||) E'\n'
        OPERATOR(pg_catalog.||) pg_catalog.encode(root, 'base64') OPERATOR(pg_catalog.||) E'\n'))
);
COMMENT ON TABLE hub.checkpoints IS 'Checkpoints that are signed by their logs, and continue one another.';
COMMENT ON COLUMN hub.checkpoints.origin IS 'The name of the log.';
COMMENT ON COLUMN hub.checkpoints.tree_size IS 'How many entries it has.';
COMMENT ON COLUMN hub.checkpoints.root IS 'Their root.';
COMMENT ON COLUMN hub.checkpoints.checkpoint IS 'The signed note, as it was shown.';
COMMENT ON COLUMN hub.checkpoints.continues IS 'The size of the checkpoint that this one was found to continue; -1 for the first.';
COMMENT ON COLUMN hub.checkpoints.pulled_from IS 'What the configuration calls the log.';
COMMENT ON COLUMN hub.checkpoints.pulled_at IS 'When it was pulled.';

CREATE TABLE hub.convictions (
    origin      text        NOT NULL,
    -- Of the checkpoint that is contradicted. Of the contradictions to one, the first that is proven is kept.
    tree_size   bigint      NOT NULL,
    -- 0, unless somebody has put there before what proves nothing.
    piece       integer     NOT NULL DEFAULT 0,
    evidence    text        NOT NULL,
    pulled_from text        NOT NULL,
    found_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (origin, tree_size, piece)
);
COMMENT ON TABLE hub.convictions IS 'Logs that have signed two histories, each with the proof.';
COMMENT ON COLUMN hub.convictions.origin IS 'The name of the log.';
COMMENT ON COLUMN hub.convictions.tree_size IS 'The size of the checkpoint in hub.checkpoints that is contradicted.';
COMMENT ON COLUMN hub.convictions.piece IS 'Numbers what is said against one checkpoint; 0, unless the first proves nothing.';
COMMENT ON COLUMN hub.convictions.evidence IS 'A fork proof (JSON), which merkle-log verify convicts the log by.';
COMMENT ON COLUMN hub.convictions.pulled_from IS 'What the configuration calls the log.';
COMMENT ON COLUMN hub.convictions.found_at IS 'When it was found.';

-- Of several hubs that pull one log, the one that has locked the log's row here adds a checkpoint. Only who may pull can
-- take that lock.
CREATE TABLE hub.pulling (
    origin text PRIMARY KEY
);
COMMENT ON TABLE hub.pulling IS 'Has a row of each log for hubs to lock, while they add a checkpoint of it.';
COMMENT ON COLUMN hub.pulling.origin IS 'The name of the log.';

CREATE FUNCTION hub.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'rows of hub.% are never changed or removed', TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'They are entries of the hub''s log.';
END
$$;
COMMENT ON FUNCTION hub.refuse_change() IS 'Refuses what would change rows that are entries of a log.';

CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE ON hub.checkpoints
    FOR EACH ROW EXECUTE FUNCTION hub.refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE ON hub.convictions
    FOR EACH ROW EXECUTE FUNCTION hub.refuse_change();
CREATE TRIGGER is_never_emptied BEFORE TRUNCATE ON hub.checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION hub.refuse_change();
CREATE TRIGGER is_never_emptied BEFORE TRUNCATE ON hub.convictions
    FOR EACH STATEMENT EXECUTE FUNCTION hub.refuse_change();
ALTER TABLE hub.checkpoints ENABLE ALWAYS TRIGGER only_grows;
ALTER TABLE hub.checkpoints ENABLE ALWAYS TRIGGER is_never_emptied;
ALTER TABLE hub.convictions ENABLE ALWAYS TRIGGER only_grows;
ALTER TABLE hub.convictions ENABLE ALWAYS TRIGGER is_never_emptied;
