-- Messages: by month, in the order of their conversation's clock.

CREATE TYPE message_type AS ENUM ('app', 'commit', 'proposal', 'welcome');

-- What was ever stored. Outlives the message, so that a late retry does not store it again.
CREATE TABLE message_ids (
    convo_id     uuid        NOT NULL REFERENCES conversations ON DELETE CASCADE,
    id           uuid        NOT NULL,
    sent_at      timestamptz NOT NULL,
    commit_epoch bigint,
    PRIMARY KEY (convo_id, id)
);
CREATE UNIQUE INDEX message_ids_commit ON message_ids (convo_id, commit_epoch) WHERE commit_epoch IS NOT NULL;

COMMENT ON TABLE message_ids IS 'The ids of all messages ever stored, with the time that finds the message.';
COMMENT ON COLUMN message_ids.commit_epoch IS 'Of a commit: the epoch that it ended. One commit an epoch.';

CREATE TABLE messages (
    convo_id     uuid         NOT NULL REFERENCES conversations ON DELETE CASCADE,
    id           uuid         NOT NULL,
    sender       text         COLLATE "C" NOT NULL CHECK (octet_length(sender) BETWEEN 1 AND 512),
    message_type message_type NOT NULL,
    epoch        bigint       NOT NULL CHECK (epoch >= 0),
    ciphertext   bytea        NOT NULL CHECK (octet_length(ciphertext) BETWEEN 1 AND 1048576),
    digest       bytea        NOT NULL GENERATED ALWAYS AS (sha256(ciphertext)) STORED,
    sent_at      timestamptz  NOT NULL,
    -- The order of pages, and all that a page of headers shows, in one index.
    PRIMARY KEY (convo_id, sent_at, id) INCLUDE (sender, message_type, epoch)
) PARTITION BY RANGE (sent_at);

ALTER TABLE messages ALTER COLUMN ciphertext SET STORAGE EXTERNAL;  -- ciphertext does not compress
CREATE INDEX messages_sender ON messages (convo_id, sender, sent_at);
CREATE INDEX messages_epoch ON messages (convo_id, epoch);

COMMENT ON TABLE messages IS 'MLS messages, a partition a month (UTC). Bodies are ciphertext.';
COMMENT ON COLUMN messages.digest IS 'SHA-256 of the ciphertext: what a transparency log hashes in its place.';

CREATE FUNCTION message_month(at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
COMMENT ON FUNCTION message_month IS 'When the month (UTC) of a time begins.';

CREATE FUNCTION next_message_month(at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
COMMENT ON FUNCTION next_message_month IS 'When the month (UTC) of a time ends.';

CREATE FUNCTION message_partition(month timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN 'messages_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
COMMENT ON FUNCTION message_partition IS 'The name of a month''s partition.';

-- The cold end: months before a bound, as partitions of a partition. Queries and transparency see the
-- archive as part of messages; its partitions can lie in another tablespace.
DO $$
BEGIN
    EXECUTE format('CREATE TABLE messages_archive PARTITION OF messages FOR VALUES FROM (MINVALUE) TO (%L)
                    PARTITION BY RANGE (sent_at)', message_month(now()));
END
$$;
COMMENT ON TABLE messages_archive IS 'The months that archive_messages() put away.';

CREATE FUNCTION messages_archived_to() RETURNS timestamptz
    LANGUAGE sql STABLE
    RETURN (SELECT substring(pg_get_expr(relpartbound, oid) FROM $re$TO \('(.*)'\)$re$)::timestamptz
              FROM pg_class WHERE oid = 'messages_archive'::regclass);
COMMENT ON FUNCTION messages_archived_to IS 'Messages before this time are in the archive.';

CREATE FUNCTION create_message_partitions(first_month timestamptz, months integer) RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    start   timestamptz := message_month(first_month);
    created integer := 0;
BEGIN
    LOCK TABLE ONLY messages IN SHARE UPDATE EXCLUSIVE MODE;  -- who comes second finds what the first one made
    FOR n IN 1 .. months LOOP
        IF to_regclass(quote_ident(message_partition(start))) IS NULL THEN
            -- The CHECK says what the partition's bounds say, and spares archive_messages() a scan.
            EXECUTE format('CREATE TABLE %1$I PARTITION OF %2$I (CONSTRAINT month CHECK (sent_at >= %3$L AND sent_at < %4$L))
                            FOR VALUES FROM (%3$L) TO (%4$L)',
                           message_partition(start),
                           CASE WHEN start < messages_archived_to() THEN 'messages_archive' ELSE 'messages' END,
                           start, next_message_month(start));
            created := created + 1;
        END IF;
        start := next_message_month(start);
    END LOOP;
    RETURN created;
END
$$;
COMMENT ON FUNCTION create_message_partitions IS 'Makes the partitions that are missing; returns how many were.';

CREATE FUNCTION archive_messages(month timestamptz, cold_tablespace text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := message_month(month);
    name  text := message_partition(start);
    older text := (SELECT min(relname) FROM pg_inherits JOIN pg_class ON oid = inhrelid
                    WHERE inhparent = 'messages'::regclass AND relname < name AND relname LIKE 'messages\_2%');
BEGIN
    IF start < messages_archived_to() THEN
        RAISE EXCEPTION '% is in the archive already', name USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF older IS NOT NULL THEN
        RAISE EXCEPTION 'the next month to archive is %, not %', older, name
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Archive months in order.';
    END IF;
    ALTER TABLE messages DETACH PARTITION messages_archive;
    EXECUTE format('ALTER TABLE messages DETACH PARTITION %I', name);
    EXECUTE format('ALTER TABLE messages_archive ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   name, start, next_message_month(start));
    EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_archive FOR VALUES FROM (MINVALUE) TO (%L)',
                   next_message_month(start));
    IF cold_tablespace IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %I SET TABLESPACE %I', name, cold_tablespace);
    END IF;
END
$$;
COMMENT ON FUNCTION archive_messages IS
    'Moves the oldest month into messages_archive, and its rows to another tablespace if one is named; else no row is copied.';

CREATE FUNCTION lock_messages(month timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('LOCK TABLE %I IN SHARE MODE', message_partition(message_month(month)));
    RETURN true;
EXCEPTION WHEN undefined_table THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION lock_messages IS 'Keeps writers out of a month until the transaction ends; false if it is not there.';

CREATE FUNCTION drop_messages(month timestamptz, expected bigint) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    name  text := message_partition(message_month(month));
    found bigint;
BEGIN
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', name);
    EXECUTE format('SELECT count(*) FROM %I', name) INTO found;
    IF found <> expected THEN
        RAISE EXCEPTION '% has % messages, not the % that were looked at', name, found, expected
            USING ERRCODE = 'serialization_failure', HINT = 'Somebody wrote into it meanwhile. Try again.';
    END IF;
    EXECUTE format('DROP TABLE %I', name);
END
$$;
COMMENT ON FUNCTION drop_messages IS 'Drops a month of messages, archived or not, if it has as many as expected. Their ids stay.';

SELECT create_message_partitions(now(), 12);

-- One round trip, so that the conversation's lock is held for no longer than the server's work takes.
-- Each statement of a VOLATILE function takes a snapshot of its own: what is read after the lock is
-- what the lock protects.
CREATE FUNCTION store_message(
    p_convo_id uuid, p_id uuid, p_sender text, p_type message_type, p_epoch bigint, p_ciphertext bytea,
    p_past_epochs bigint,
    OUT outcome text, OUT sent_at timestamptz, OUT current_epoch bigint
) LANGUAGE plpgsql AS $$
DECLARE
    conversation conversations;
BEGIN
    SELECT * INTO conversation FROM conversations c WHERE c.id = p_convo_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        outcome := 'no_conversation';
        RETURN;
    END IF;
    current_epoch := conversation.epoch;

    SELECT m.sent_at INTO sent_at FROM message_ids m WHERE m.convo_id = p_convo_id AND m.id = p_id;
    IF FOUND THEN
        SELECT CASE WHEN m.sender = p_sender AND m.message_type = p_type AND m.epoch = p_epoch
                         AND m.ciphertext = p_ciphertext
                    THEN 'duplicate' ELSE 'id_taken' END
          INTO outcome FROM messages m
         WHERE m.convo_id = p_convo_id AND m.sent_at = store_message.sent_at AND m.id = p_id;
        outcome := coalesce(outcome, 'duplicate');  -- deleted or put away since: there is nothing to compare
        RETURN;
    END IF;

    IF p_epoch > conversation.epoch
       OR p_epoch < conversation.epoch - (CASE WHEN p_type = 'app' THEN coalesce(p_past_epochs, 0) ELSE 0 END) THEN
        outcome := 'wrong_epoch';
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM members m
                    WHERE m.convo_id = p_convo_id AND m.member_did = p_sender
                      AND m.joined_epoch <= p_epoch AND (m.left_epoch IS NULL OR p_epoch < m.left_epoch)) THEN
        outcome := 'no_member';
        RETURN;
    END IF;

    sent_at := greatest(clock_timestamp(), conversation.clock + interval '1 microsecond');
    INSERT INTO message_ids (convo_id, id, sent_at, commit_epoch)
         VALUES (p_convo_id, p_id, store_message.sent_at, CASE WHEN p_type = 'commit' THEN p_epoch END);
    INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         VALUES (p_convo_id, p_id, p_sender, p_type, p_epoch, p_ciphertext, store_message.sent_at);
    IF p_type = 'app' THEN
        UPDATE members m SET unread_count = m.unread_count + 1
         WHERE m.convo_id = p_convo_id AND m.left_at IS NULL AND m.member_did <> p_sender;
    END IF;
    IF p_type = 'commit' THEN
        current_epoch := conversation.epoch + 1;
        UPDATE conversations c
           SET epoch = current_epoch, clock = store_message.sent_at, updated_at = store_message.sent_at
         WHERE c.id = p_convo_id;
    ELSE
        UPDATE conversations c SET clock = store_message.sent_at, updated_at = store_message.sent_at
         WHERE c.id = p_convo_id;
    END IF;
    outcome := 'stored';
END
$$;
COMMENT ON FUNCTION store_message IS
    'Stores a message once, counts it as unread, and moves the epoch if it is a commit. Locks the conversation''s row first.';
