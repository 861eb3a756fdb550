-- An application's table, a log of it, and the roles of the services. Each role has the name of the user that the service
-- runs as, and no right that the service does not use.
\set ON_ERROR_STOP on
BEGIN;
CREATE TABLE orders (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    amount numeric NOT NULL,
    note   text
);

CREATE EXTENSION merkle_log;
SELECT create_log('orders', checkpoint_interval => '5 s');
SELECT add_source('orders', 'orders', capture => 'trigger', store_leaf_data => true);

-- The gateway: rows of this table are shown to everyone (public_logs in merkle-log.toml), and checks and metrics.
CREATE ROLE "merkle-log" LOGIN;
GRANT pg_monitor TO "merkle-log";
GRANT SELECT ON orders TO "merkle-log";

-- The export: whoever reads the object store sees the rows.
CREATE ROLE "merkle-log-export" LOGIN;
GRANT SELECT ON orders TO "merkle-log-export";

-- Submission to witnesses.
CREATE ROLE "merkle-log-submit" LOGIN;
GRANT EXECUTE ON FUNCTION add_cosignature(text, text, text[]) TO "merkle-log-submit";
COMMIT;
