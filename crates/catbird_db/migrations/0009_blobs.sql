-- Blobs: contents, and who keeps them in which conversation. Content goes with its last reference.
-- Servers of the version before cannot store or read blobs after this.

ALTER TABLE blobs RENAME TO blob_copies;
ALTER TABLE blob_copies RENAME CONSTRAINT blobs_pkey TO blob_copies_pkey;

CREATE TABLE blobs (
    cid  text    COLLATE "C" NOT NULL CHECK (cid ~ '^b[a-z2-7]{58}$'),
    data bytea   NOT NULL,
    size integer NOT NULL CHECK (size BETWEEN 1 AND 52428800),
    PRIMARY KEY (cid) INCLUDE (size),
    CHECK (size = octet_length(data))
);
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;  -- ciphertext does not compress

CREATE TABLE blob_references (
    cid        text        COLLATE "C" NOT NULL REFERENCES blobs,
    uploader   text        COLLATE "C" NOT NULL CHECK (uploader LIKE 'did:_%:_%' AND octet_length(uploader) <= 512),
    convo_id   uuid        REFERENCES conversations ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE NULLS NOT DISTINCT (cid, uploader, convo_id)
);
CREATE INDEX blob_references_uploader ON blob_references (uploader, cid);
CREATE INDEX blob_references_convo ON blob_references (convo_id, created_at, cid, uploader) WHERE convo_id IS NOT NULL;

COMMENT ON TABLE blobs IS 'The contents of encrypted attachments, each once.';
COMMENT ON COLUMN blobs.cid IS 'CIDv1, raw codec, SHA-256, base32: the name follows from the data.';
COMMENT ON TABLE blob_references IS
    'Who keeps a blob, in which conversation or in none. The last one that goes takes the content along.';

INSERT INTO blobs (cid, data, size) SELECT DISTINCT ON (cid) cid, data, size FROM blob_copies ORDER BY cid;
INSERT INTO blob_references (cid, uploader, convo_id, created_at) SELECT cid, uploader, convo_id, created_at FROM blob_copies;
DROP TABLE blob_copies;

-- In the order of their names, so that two who delete do not lock each other out. The second statement
-- has a snapshot taken after the locks: it sees the references that were stored or deleted meanwhile.
CREATE FUNCTION delete_blobs_without_reference() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM blobs b WHERE b.cid IN (SELECT d.cid FROM deleted d) ORDER BY b.cid FOR UPDATE;
    DELETE FROM blobs b
     WHERE b.cid IN (SELECT d.cid FROM deleted d)
       AND NOT EXISTS (SELECT FROM blob_references r WHERE r.cid = b.cid);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION delete_blobs_without_reference IS 'Deletes the contents whose last reference was deleted.';
CREATE TRIGGER delete_blobs AFTER DELETE ON blob_references REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION delete_blobs_without_reference();

CREATE FUNCTION store_blob(
    p_cid text, p_data bytea, p_uploader text, p_convo_id uuid,
    OUT outcome text, OUT created_at timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    -- Kept from being deleted until the reference is there. Conversations are locked before blobs.
    PERFORM FROM conversations c WHERE c.id = p_convo_id FOR KEY SHARE;
    LOOP
        SELECT r.created_at INTO created_at FROM blob_references r
         WHERE r.cid = p_cid AND r.uploader = p_uploader AND r.convo_id IS NOT DISTINCT FROM p_convo_id;
        IF FOUND THEN
            outcome := 'stored';
            RETURN;
        ELSIF p_convo_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM members m WHERE m.convo_id = p_convo_id AND m.member_did = p_uploader AND m.left_at IS NULL) THEN
            outcome := 'no_member';
            RETURN;
        END IF;
        INSERT INTO blobs (cid, data, size) VALUES (p_cid, p_data, octet_length(p_data)) ON CONFLICT DO NOTHING;
        -- Unless its last reference takes the content along just now.
        PERFORM FROM blobs b WHERE b.cid = p_cid FOR KEY SHARE;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO blob_references (cid, uploader, convo_id) VALUES (p_cid, p_uploader, p_convo_id) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;
COMMENT ON FUNCTION store_blob IS
    'Stores a blob for an uploader, in a conversation that they are in or in none; what is there stays as it is.';

-- Conversations are locked before blobs, as who deletes a conversation does, and as who writes to it: another call of
-- the same transaction may go on to that.
CREATE FUNCTION delete_blob(p_cid text, p_uploader text, p_convo_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM conversations c WHERE c.id = p_convo_id FOR NO KEY UPDATE;
    PERFORM FROM blobs b WHERE b.cid = p_cid FOR UPDATE;
    DELETE FROM blob_references r
     WHERE r.cid = p_cid AND r.uploader = p_uploader AND r.convo_id IS NOT DISTINCT FROM p_convo_id;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION delete_blob IS
    'Deletes what an uploader keeps in a conversation or in none; false if they keep nothing of this name there.';
