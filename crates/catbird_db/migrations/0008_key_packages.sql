-- Key packages: a claim that is made again gets the same package.

ALTER TABLE key_packages ADD COLUMN claim uuid CHECK (claim IS NULL OR consumed_at IS NOT NULL);
COMMENT ON COLUMN key_packages.claim IS 'What the claimer called its claim: made again, it is answered with the same package.';
CREATE UNIQUE INDEX key_packages_claim ON key_packages (did, claim, cipher_suite) WHERE claim IS NOT NULL;

CREATE TABLE last_resort_claims (
    did            text        COLLATE "C" NOT NULL,
    key_package_id bigint      NOT NULL,
    claim          uuid        NOT NULL,
    claimed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (did, key_package_id, claim),
    FOREIGN KEY (did, key_package_id) REFERENCES key_packages ON DELETE CASCADE
);
COMMENT ON TABLE last_resort_claims IS
    'The claims that were answered with a last-resort package, which they are answered with again. They go with the package.';

-- Of one claim that is made several times at once, the others wait for the first. Each statement of a
-- VOLATILE function takes a snapshot of its own, so that they find what it was given.
CREATE FUNCTION lock_claim(p_did text, p_claim uuid) RETURNS void
    LANGUAGE sql VOLATILE
    BEGIN ATOMIC
        SELECT pg_advisory_xact_lock(hashtextextended(p_did || ' ' || p_claim, 0));
    END;
COMMENT ON FUNCTION lock_claim IS 'Waits for the same claim of another transaction.';

-- The clock is read after the waits: what has expired meanwhile is not given out. Where it went back, a package is
-- given out when it was made.
CREATE FUNCTION claim_key_package(p_did text, p_cipher_suite integer, p_claim uuid) RETURNS SETOF key_packages
    LANGUAGE plpgsql AS $$
DECLARE
    given key_packages;
    now   timestamptz;
BEGIN
    PERFORM lock_claim(p_did, p_claim);
    RETURN QUERY SELECT * FROM key_packages k
                  WHERE k.did = p_did AND k.claim = p_claim AND k.cipher_suite = p_cipher_suite;
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT k.* FROM key_packages k
                   JOIN last_resort_claims c ON c.did = k.did AND c.key_package_id = k.id AND c.claim = p_claim
                  WHERE k.did = p_did AND k.cipher_suite = p_cipher_suite AND k.last_resort;
    IF FOUND THEN
        RETURN;
    END IF;

    now := clock_timestamp();
    RETURN QUERY UPDATE key_packages p SET consumed_at = greatest(now, p.created_at), claim = p_claim
                  WHERE p.did = p_did
                    AND p.id = (SELECT k.id FROM key_packages k
                                 WHERE k.did = p_did AND k.cipher_suite = p_cipher_suite
                                   AND k.consumed_at IS NULL AND NOT k.last_resort AND k.expires_at > now
                                 ORDER BY k.id LIMIT 1 FOR UPDATE SKIP LOCKED)
                 RETURNING p.*;
    IF FOUND THEN
        RETURN;
    END IF;
    -- Locked, so that it is not deleted before the claim refers to it.
    SELECT * INTO given FROM key_packages k
     WHERE k.did = p_did AND k.cipher_suite = p_cipher_suite AND k.last_resort AND k.expires_at > now
     ORDER BY k.id DESC LIMIT 1 FOR KEY SHARE;
    IF FOUND THEN
        INSERT INTO last_resort_claims (did, key_package_id, claim) VALUES (p_did, given.id, p_claim);
        RETURN NEXT given;
    END IF;
END
$$;
COMMENT ON FUNCTION claim_key_package IS
    'Gives out the oldest package that is available, else the newest last resort; to the same claim the same package again.';

CREATE FUNCTION consume_key_package(p_did text, p_id bigint, p_claim uuid) RETURNS SETOF key_packages
    LANGUAGE plpgsql AS $$
DECLARE
    now timestamptz;
BEGIN
    PERFORM lock_claim(p_did, p_claim);
    IF EXISTS (SELECT FROM key_packages k WHERE k.did = p_did AND k.claim = p_claim)
       OR EXISTS (SELECT FROM key_packages k
                    JOIN last_resort_claims c ON c.did = k.did AND c.key_package_id = k.id AND c.claim = p_claim
                   WHERE k.did = p_did AND k.last_resort) THEN
        RETURN QUERY SELECT * FROM key_packages k WHERE k.did = p_did AND k.claim = p_claim AND k.id = p_id;
        RETURN;
    END IF;
    PERFORM FROM key_packages k WHERE k.did = p_did AND k.id = p_id FOR NO KEY UPDATE;
    now := clock_timestamp();
    RETURN QUERY UPDATE key_packages p SET consumed_at = greatest(now, p.created_at), claim = p_claim
                  WHERE p.did = p_did AND p.id = p_id AND p.consumed_at IS NULL AND NOT p.last_resort AND p.expires_at > now
                 RETURNING p.*;
END
$$;
COMMENT ON FUNCTION consume_key_package IS 'Marks a package as given out to a claim; again, if the same claim asks.';
