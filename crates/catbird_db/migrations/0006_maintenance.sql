-- Months come and go beside live traffic: one lock order, short waits, no settings of the session.

-- A partition that is attached, detached or dropped also locked what its foreign key refers to, after
-- messages; senders lock conversations before messages. store_message() holds the conversation's row.
ALTER TABLE messages DROP CONSTRAINT messages_convo_id_fkey;

-- A DELETE locks every partition that its plan has. Planned for the values at hand and a month at a time, it has
-- those with rows to delete, and waits for no maintenance of others.
CREATE FUNCTION delete_messages_of_conversation() RETURNS trigger
    LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    month timestamptz;
BEGIN
    FOR month IN SELECT DISTINCT message_month(m.sent_at) FROM messages m WHERE m.convo_id = OLD.id ORDER BY 1 LOOP
        DELETE FROM messages m
         WHERE m.convo_id = OLD.id AND m.sent_at >= month AND m.sent_at < next_message_month(month);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION delete_messages_of_conversation IS
    'Deletes the messages of a conversation that is deleted, as a foreign key would, whose locks messages does without.';
CREATE TRIGGER delete_messages AFTER DELETE ON conversations
    FOR EACH ROW EXECUTE FUNCTION delete_messages_of_conversation();

-- Bounds are read and written as text. NULL where there is no archive.
CREATE OR REPLACE FUNCTION messages_archived_to() RETURNS timestamptz
    LANGUAGE sql STABLE SET datestyle = 'ISO' SET timezone = 'UTC'
    RETURN (SELECT substring(pg_get_expr(relpartbound, oid) FROM $re$TO \('(.*)'\)$re$)::timestamptz
              FROM pg_class WHERE oid = to_regclass('messages_archive'));

CREATE FUNCTION messages_until() RETURNS timestamptz
    LANGUAGE sql STABLE SET datestyle = 'ISO' SET timezone = 'UTC'
    RETURN (WITH RECURSIVE months AS (
                SELECT substring(bound FROM $re$FROM \('(.*?)'\)$re$)::timestamptz AS begins,
                       substring(bound FROM $re$TO \('(.*?)'\)$re$)::timestamptz AS ends
                  FROM pg_inherits i
                  JOIN pg_class c ON c.oid = i.inhrelid
                 CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS bound
                 WHERE i.inhparent = 'messages'::regclass),
            run AS (
                SELECT message_month(statement_timestamp()) AS until
                 UNION ALL
                SELECT months.ends FROM run JOIN months ON months.begins = run.until)
            SELECT max(until) FROM run);
COMMENT ON FUNCTION messages_until IS 'From now until this time every month has a partition for its messages.';

CREATE OR REPLACE FUNCTION create_message_partitions(first_month timestamptz, months integer) RETURNS integer
    LANGUAGE plpgsql SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    start   timestamptz := message_month(first_month);
    created integer := 0;
BEGIN
    LOCK TABLE ONLY messages IN SHARE UPDATE EXCLUSIVE MODE;  -- who comes second finds what the first one made
    FOR n IN 1 .. months LOOP
        IF to_regclass(quote_ident(message_partition(start))) IS NULL THEN
            -- Attached, since CREATE TABLE … PARTITION OF would lock out everyone who reads or writes messages.
            -- The CHECK says what the partition's bounds say, and spares archive_messages() a scan.
            EXECUTE format('CREATE TABLE %1$I (LIKE messages INCLUDING ALL, CONSTRAINT month CHECK (sent_at >= %2$L AND sent_at < %3$L))',
                           message_partition(start), start, next_message_month(start));
            EXECUTE format('ALTER TABLE %1$I ATTACH PARTITION %2$I FOR VALUES FROM (%3$L) TO (%4$L)',
                           CASE WHEN start < messages_archived_to() THEN 'messages_archive' ELSE 'messages' END,
                           message_partition(start), start, next_message_month(start));
            created := created + 1;
        END IF;
        start := next_message_month(start);
    END LOOP;
    RETURN created;
END
$$;

CREATE OR REPLACE FUNCTION lock_messages(month timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE ONLY messages IN SHARE UPDATE EXCLUSIVE MODE;
    -- Autovacuum is waited for here, where nobody waits behind this.
    EXECUTE format('LOCK TABLE %I IN SHARE UPDATE EXCLUSIVE MODE', message_partition(message_month(month)));
    RETURN true;
EXCEPTION WHEN undefined_table THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION lock_messages IS
    'Keeps other maintenance off messages, and vacuum off a month, until the transaction ends; false if the month is not there. Readers and writers go on.';

CREATE FUNCTION refuse_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% takes no more messages: it is being dropped', TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = format('If it is to be kept: DROP TRIGGER closed ON %I', TG_TABLE_NAME);
END
$$;
COMMENT ON FUNCTION refuse_message IS 'Refuses a message of a month that is closed.';

-- A lock that kept writers out until the month is dropped would be held while messages is asked for: whoever
-- waits for the month holds messages.
CREATE FUNCTION close_messages(month timestamptz) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER closed BEFORE INSERT ON %I FOR EACH ROW EXECUTE FUNCTION refuse_message()',
                   message_partition(message_month(month)));
END
$$;
COMMENT ON FUNCTION close_messages IS
    'Lets a month take no more messages, from here on. Until the transaction ends, who deletes a message of the month waits.';

CREATE FUNCTION lock_out_messages(month timestamptz, archive boolean) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    patience text        := current_setting('lock_timeout');
    until    timestamptz := clock_timestamp() + patience::interval;
    wait     integer     := 50;
BEGIN
    -- Whoever comes after a request for this lock waits behind it. So it is given up after a moment, and
    -- made again until all who were there before are gone within that moment. What the transaction holds
    -- meanwhile (lock_messages) keeps no reader or writer waiting: one who waited for it would hold messages.
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', wait::text, true);
            LOCK TABLE ONLY messages IN ACCESS EXCLUSIVE MODE;
            IF archive THEN
                LOCK TABLE messages_archive IN ACCESS EXCLUSIVE MODE;
            END IF;
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', message_partition(message_month(month)));
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF patience <> '0' AND clock_timestamp() > until THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.05 + random() * 0.1);
        wait := least(wait + 25, 200);
    END LOOP;
    PERFORM set_config('lock_timeout', patience, true);
END
$$;
COMMENT ON FUNCTION lock_out_messages IS
    'Keeps everyone out of messages and a month of it, and out of the archive if asked to, until the transaction ends. A request keeps nobody waiting for more than 200 ms. Fails after lock_timeout.';

CREATE OR REPLACE FUNCTION archive_messages(month timestamptz, cold_tablespace text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    start timestamptz := message_month(month);
    name  text := message_partition(start);
    older text;
BEGIN
    IF NOT lock_messages(start) THEN
        RAISE EXCEPTION '% does not exist', name USING ERRCODE = 'undefined_table';
    END IF;
    IF start >= messages_archived_to() THEN
        SELECT min(relname) INTO older FROM pg_inherits JOIN pg_class ON oid = inhrelid
         WHERE inhparent = 'messages'::regclass AND relname < name AND relname LIKE 'messages\_2%';
        IF older IS NOT NULL THEN
            RAISE EXCEPTION 'the next month to archive is %, not %', older, name
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Archive months in order.';
        END IF;
        -- Before everyone is locked out: maintenance by the server, such as autovacuum, is waited for here.
        LOCK TABLE messages_archive IN SHARE UPDATE EXCLUSIVE MODE;
        PERFORM lock_out_messages(start, true);
        ALTER TABLE messages DETACH PARTITION messages_archive;
        EXECUTE format('ALTER TABLE messages DETACH PARTITION %I', name);
        EXECUTE format('ALTER TABLE messages_archive ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       name, start, next_message_month(start));
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_archive FOR VALUES FROM (MINVALUE) TO (%L)',
                       next_message_month(start));
    END IF;
    IF cold_tablespace IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %I SET TABLESPACE %I', name, cold_tablespace);
    END IF;
END
$$;
COMMENT ON FUNCTION archive_messages IS
    'Moves the oldest month into messages_archive, if it is not there, and its rows to another tablespace if one is named; else no row is copied. Move rows in a transaction of their own: readers of the month wait for that.';

DROP FUNCTION drop_messages(timestamptz, bigint);
CREATE FUNCTION drop_messages(month timestamptz) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    name text := message_partition(message_month(month));
BEGIN
    IF NOT lock_messages(month) THEN
        RAISE EXCEPTION '% does not exist', name USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM lock_out_messages(month, message_month(month) < messages_archived_to());
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %I',
                   (SELECT inhparent::regclass FROM pg_inherits WHERE inhrelid = quote_ident(name)::regclass), name);
    EXECUTE format('DROP TABLE %I', name);
END
$$;
COMMENT ON FUNCTION drop_messages IS 'Detaches and drops a month of messages, archived or not. Their ids stay.';
