-- Key packages (RFC 9420 §10): each is given out once, but for last-resort ones (RFC 9420 §16.8).

CREATE TABLE key_packages (
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    did          text        COLLATE "C" NOT NULL CHECK (did LIKE 'did:_%:_%' AND octet_length(did) <= 512),
    cipher_suite integer     NOT NULL CHECK (cipher_suite BETWEEN 1 AND 65535),
    key_data     bytea       NOT NULL CHECK (octet_length(key_data) BETWEEN 1 AND 65536),
    digest       bytea       NOT NULL GENERATED ALWAYS AS (sha256(key_data)) STORED,
    last_resort  boolean     NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL CHECK (expires_at > created_at),
    consumed_at  timestamptz CHECK (consumed_at >= created_at),
    PRIMARY KEY (did, id),
    -- Of the digest: an index entry cannot hold a key package.
    UNIQUE (did, cipher_suite, digest),
    CHECK (NOT (last_resort AND consumed_at IS NOT NULL))
);

CREATE INDEX key_packages_available ON key_packages (did, cipher_suite, id)
    WHERE consumed_at IS NULL AND NOT last_resort;
CREATE INDEX key_packages_last_resort ON key_packages (did, cipher_suite, id) WHERE last_resort;
CREATE INDEX key_packages_expires_at ON key_packages (expires_at);

COMMENT ON TABLE key_packages IS 'MLS key packages, each given to one joiner; last-resort ones to any number.';
COMMENT ON COLUMN key_packages.cipher_suite IS 'MLS cipher suite (RFC 9420 §17.1).';
COMMENT ON COLUMN key_packages.digest IS 'SHA-256 of key_data: what a transparency log hashes in its place.';
