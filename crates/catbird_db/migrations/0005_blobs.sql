-- Blobs: encrypted attachments, named by what they contain.

CREATE TABLE blobs (
    cid        text        COLLATE "C" NOT NULL CHECK (cid ~ '^b[a-z2-7]{58}$'),
    uploader   text        COLLATE "C" NOT NULL CHECK (uploader LIKE 'did:_%:_%' AND octet_length(uploader) <= 512),
    convo_id   uuid        REFERENCES conversations ON DELETE CASCADE,
    data       bytea       NOT NULL,
    size       integer     NOT NULL CHECK (size BETWEEN 1 AND 52428800),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Each uploader has a copy: nobody can delete another's, or learn that there is one.
    PRIMARY KEY (cid, uploader),
    CHECK (size = octet_length(data))
);

ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;  -- ciphertext does not compress
CREATE INDEX blobs_uploader ON blobs (uploader) INCLUDE (size);
CREATE INDEX blobs_convo ON blobs (convo_id, created_at, cid, uploader) WHERE convo_id IS NOT NULL;
CREATE INDEX blobs_size ON blobs (size);
CREATE INDEX blobs_created_at ON blobs (created_at);

COMMENT ON TABLE blobs IS 'Encrypted attachments.';
COMMENT ON COLUMN blobs.cid IS 'CIDv1, raw codec, SHA-256, base32: the name follows from the data.';
