-- Members: one row for each time that someone was in a conversation.

CREATE TABLE members (
    convo_id     uuid        NOT NULL REFERENCES conversations ON DELETE CASCADE,
    member_did   text        COLLATE "C" NOT NULL CHECK (member_did LIKE 'did:_%:_%' AND octet_length(member_did) <= 512),
    joined_at    timestamptz NOT NULL,
    left_at      timestamptz CHECK (left_at > joined_at),
    joined_epoch bigint      NOT NULL CHECK (joined_epoch >= 0),
    left_epoch   bigint      CHECK (left_epoch >= joined_epoch),
    unread_count integer     NOT NULL DEFAULT 0 CHECK (unread_count >= 0),
    has_unread   boolean     NOT NULL GENERATED ALWAYS AS (unread_count > 0) STORED,
    PRIMARY KEY (convo_id, member_did, joined_at),
    CHECK ((left_at IS NULL) = (left_epoch IS NULL))
) WITH (fillfactor = 45);  -- each message updates the counters of all members in place

CREATE UNIQUE INDEX members_active ON members (convo_id, member_did) WHERE left_at IS NULL;
CREATE INDEX members_did ON members (member_did, convo_id);
CREATE INDEX members_left_at ON members (left_at) WHERE left_at IS NOT NULL;
-- On has_unread, not on the counter: one unread message more moves nothing in an index.
CREATE INDEX members_unread ON members (member_did) WHERE has_unread AND left_at IS NULL;

COMMENT ON TABLE members IS 'A row for each time that someone was in a conversation; left_at is NULL while they are.';
COMMENT ON COLUMN members.joined_epoch IS 'The first epoch whose messages they may send.';
COMMENT ON COLUMN members.left_epoch IS 'The first epoch whose messages they may no longer send.';
