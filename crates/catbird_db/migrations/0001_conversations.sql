-- Conversations: MLS groups, and the clock by which everything in one is ordered.

CREATE TABLE conversations (
    id         uuid        PRIMARY KEY,
    -- DIDs are checked whole by the type Did; here only cheaply, since an UPDATE checks every column.
    creator    text        COLLATE "C" NOT NULL CHECK (creator LIKE 'did:_%:_%' AND octet_length(creator) <= 512),
    epoch      bigint      NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    title      text        CHECK (char_length(title) BETWEEN 1 AND 256),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    clock      timestamptz NOT NULL,
    CHECK (created_at <= updated_at AND updated_at <= clock)
) WITH (fillfactor = 70);  -- a message updates its conversation in place: no index has a column of that

CREATE INDEX conversations_creator ON conversations (creator, created_at);
CREATE INDEX conversations_created_at ON conversations (created_at);

COMMENT ON TABLE conversations IS 'MLS groups (RFC 9420).';
COMMENT ON COLUMN conversations.epoch IS 'The group''s epoch. Moves by one, with the commit that caused it.';
COMMENT ON COLUMN conversations.clock IS
    'The last time given out here. Each event takes a later one under the row''s lock, so times follow the order of commits.';

CREATE FUNCTION epoch_moves_by_one() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'conversation % cannot go from epoch % to epoch %', OLD.id, OLD.epoch, NEW.epoch
        USING ERRCODE = 'check_violation',
              HINT = 'An epoch moves by one, with the commit that caused it: use store_message().';
END
$$;
CREATE TRIGGER epoch_moves_by_one BEFORE UPDATE OF epoch ON conversations
    FOR EACH ROW WHEN (NEW.epoch NOT IN (OLD.epoch, OLD.epoch + 1)) EXECUTE FUNCTION epoch_moves_by_one();
