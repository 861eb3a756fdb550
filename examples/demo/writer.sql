-- One of eight writers: 12,500 rows in transactions of 250.
SELECT format(
    $$INSERT INTO orders (customer, amount, items, tags)
      SELECT gen_random_uuid(), round((random() * 500)::numeric, 2),
             jsonb_build_object('sku', i, 'writer', %1$s), ARRAY['web', 'w%1$s']
        FROM generate_series(1, 125) i;
      INSERT INTO payments (order_id, amount, method, receipt)
      SELECT i, round((random() * 500)::numeric, 2), 'card', sha256(random()::text::bytea)
        FROM generate_series(1, 125) i$$, :writer)
  FROM generate_series(1, 50) \gexec
