-- Messages: what a retry is answered, who may know of an id, counters that no value of a client's stops.

ALTER TABLE message_ids
    ADD COLUMN sender       text COLLATE "C",
    ADD COLUMN message_type message_type,
    ADD COLUMN epoch_after  bigint;
COMMENT ON COLUMN message_ids.sender IS 'Who stored it: a retry is theirs. NULL for messages stored before this column was.';
COMMENT ON COLUMN message_ids.message_type IS
    'Of which type it was: a message of another type is no retry. NULL for messages stored before this column was.';
COMMENT ON COLUMN message_ids.epoch_after IS
    'The conversation''s epoch after it, which a retry is answered. NULL for messages stored before this column was.';

-- Entries are in the order of their times, so a range of them is found in a few pages.
CREATE INDEX message_ids_sent_at ON message_ids USING brin (sent_at);

-- No query reads these.
DROP INDEX messages_sender, messages_epoch, conversations_creator, conversations_created_at, members_left_at, members_unread;
ALTER TABLE members DROP COLUMN has_unread;

CREATE OR REPLACE FUNCTION store_message(
    p_convo_id uuid, p_id uuid, p_sender text, p_type message_type, p_epoch bigint, p_ciphertext bytea,
    p_past_epochs bigint,
    OUT outcome text, OUT sent_at timestamptz, OUT current_epoch bigint
) LANGUAGE plpgsql AS $$
DECLARE
    conversation conversations;
    stored       message_ids;
    message      messages;
    known        boolean;
BEGIN
    SELECT * INTO conversation FROM conversations c WHERE c.id = p_convo_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        outcome := 'no_conversation';
        RETURN;
    END IF;

    SELECT * INTO stored FROM message_ids i WHERE i.convo_id = p_convo_id AND i.id = p_id;
    known := FOUND;
    IF known THEN
        SELECT * INTO message FROM messages m
         WHERE m.convo_id = p_convo_id AND m.sent_at = stored.sent_at AND m.id = p_id;
        -- Of one that was deleted or dropped since there is nothing to compare but its sender and its type, and
        -- the epoch of a commit.
        IF coalesce(message.sender, stored.sender) = p_sender
           AND (CASE WHEN message.id IS NOT NULL
                     THEN message.message_type = p_type AND message.epoch = p_epoch AND message.ciphertext = p_ciphertext
                     WHEN p_type = 'commit' OR stored.commit_epoch IS NOT NULL
                     THEN p_type = 'commit' AND coalesce(stored.commit_epoch = p_epoch, false)
                     ELSE coalesce(stored.message_type = p_type, true) END) THEN
            outcome := 'duplicate';
            sent_at := stored.sent_at;
            current_epoch := coalesce(stored.epoch_after, stored.commit_epoch + 1, conversation.epoch);
            RETURN;
        END IF;
    END IF;
    -- Who was never in learns neither ids nor the epoch.
    IF NOT EXISTS (SELECT FROM members m WHERE m.convo_id = p_convo_id AND m.member_did = p_sender) THEN
        outcome := 'no_member';
        RETURN;
    END IF;
    IF known THEN
        outcome := 'id_taken';
        RETURN;
    END IF;

    current_epoch := conversation.epoch;
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
    IF p_type = 'commit' THEN
        current_epoch := conversation.epoch + 1;
    END IF;
    INSERT INTO message_ids (convo_id, id, sent_at, commit_epoch, sender, message_type, epoch_after)
         VALUES (p_convo_id, p_id, store_message.sent_at, CASE WHEN p_type = 'commit' THEN p_epoch END, p_sender, p_type,
                 current_epoch);
    INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         VALUES (p_convo_id, p_id, p_sender, p_type, p_epoch, p_ciphertext, store_message.sent_at);
    IF p_type = 'app' THEN
        -- A counter that is full stays so: it must not keep others from sending.
        UPDATE members m SET unread_count = least(m.unread_count, 2147483646) + 1
         WHERE m.convo_id = p_convo_id AND m.left_at IS NULL AND m.member_did <> p_sender;
    END IF;
    UPDATE conversations c SET epoch = current_epoch, clock = store_message.sent_at, updated_at = store_message.sent_at
     WHERE c.id = p_convo_id;
    outcome := 'stored';
END
$$;

-- Planned for the values at hand, since another plan would lock the partitions of all months.
CREATE FUNCTION delete_message(p_convo_id uuid, p_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    at      timestamptz;
    message messages;
BEGIN
    PERFORM FROM conversations c WHERE c.id = p_convo_id FOR NO KEY UPDATE;
    SELECT i.sent_at INTO at FROM message_ids i WHERE i.convo_id = p_convo_id AND i.id = p_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM messages m WHERE m.convo_id = p_convo_id AND m.sent_at = at AND m.id = p_id RETURNING * INTO message;
    IF message.message_type = 'app' THEN
        -- What a member has not read are the last of the others' messages, as many as the counter says:
        -- this one was among them if not as many came after it. No more than 10,000 are looked at, since
        -- everyone in the conversation waits for that: if there are more, this one counts as read.
        WITH later AS MATERIALIZED (
            SELECT l.sender, l.message_type, count(*) AS messages
              FROM (SELECT m.sender, m.message_type FROM messages m
                     WHERE m.convo_id = p_convo_id AND m.sent_at >= at AND (m.sent_at, m.id) > (at, p_id)
                       AND EXISTS (SELECT FROM members u
                                    WHERE u.convo_id = p_convo_id AND u.left_at IS NULL AND u.unread_count > 0)
                     ORDER BY m.sent_at, m.id LIMIT 10000) l
             GROUP BY l.sender, l.message_type)
        UPDATE members u SET unread_count = u.unread_count - 1
         WHERE u.convo_id = p_convo_id AND u.left_at IS NULL AND u.joined_at <= at AND u.member_did <> message.sender
           AND (SELECT coalesce(sum(l.messages), 0) FROM later l) < 10000
           AND u.unread_count > (SELECT coalesce(sum(l.messages), 0) FROM later l
                                  WHERE l.message_type = 'app' AND l.sender <> u.member_did);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION delete_message IS
    'Deletes a message, and counts it no longer for those who had not read it; false if there never was one of this id. Locks the conversation''s row first.';
