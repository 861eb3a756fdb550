CREATE TABLE orders (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer uuid NOT NULL,
    amount   numeric(12, 2) NOT NULL,
    placed   timestamptz NOT NULL DEFAULT now(),
    items    jsonb,
    tags     text[]
);

CREATE TABLE payments (
    id       bigserial PRIMARY KEY,
    order_id bigint,
    amount   numeric(12, 2) NOT NULL,
    method   text NOT NULL,
    paid_on  date NOT NULL DEFAULT current_date,
    receipt  bytea
);

CREATE EXTENSION merkle_log;
SELECT create_log('audit', verify_interval => '5 s') \g /dev/null
SELECT add_source('audit', 'orders', order_column => 'id') \g /dev/null
SELECT add_source('audit', 'payments', order_column => 'id') \g /dev/null

CREATE TABLE accounts (
    iban    text PRIMARY KEY,
    owner   text NOT NULL,
    balance numeric(12, 2) NOT NULL
);
SELECT create_log('history') \g /dev/null
SELECT add_source('history', 'accounts', capture => 'trigger', store_leaf_data => true) \g /dev/null
