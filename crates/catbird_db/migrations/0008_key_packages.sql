-- Key packages: a claim that is made again gets the same package.

ALTER TABLE key_packages ADD COLUMN claim uuid CHECK (claim IS NULL OR consumed_at IS NOT NULL);
COMMENT ON COLUMN key_packages.claim IS 'What the claimer called its claim: made again, it is answered with the same package.';
CREATE UNIQUE INDEX key_packages_claim ON key_packages (did, claim) WHERE claim IS NOT NULL;
