#!/usr/bin/env bash
# demo.sh PG_CONFIG: merkle_log in a minute, on a private cluster in a temporary directory.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh" "$1"

stop_cluster
start_cluster
say() { printf '\n%s\n' "$*"; }
sql() { psql -d shop -c "$1"; }
value() { psql -d shop -At -c "$1"; }

createdb shop
psql -d shop -q -f "$here/schema.sql"

say "1. Eight writers insert 100,000 rows into two tables. The background worker logs them."
writers=()
for writer in 1 2 3 4 5 6 7 8; do
    psql -d shop -q -v writer=$writer -f "$here/writer.sql" &
    writers+=($!)
done
for writer in "${writers[@]}"; do wait "$writer"; done
rows=$(value "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM payments)")
waited=0
until [ "$(value "SELECT merkle_size('audit')")" = "$rows" ]; do
    waited=$((waited + 1))
    if [ $waited -gt 600 ]; then value "SELECT * FROM merkle_log_health()" >&2; exit 1; fi
    sleep 0.1
done
echo "$rows rows committed, $(value "SELECT merkle_size('audit')") entries logged, in $(value "SELECT count(*) FROM tree_heads('audit')") batches."

say "2. One hash now stands for all of it. Publish it, mail it, print it:"
echo "   SELECT merkle_root('audit');   $(value "SELECT merkle_root('audit')")"

say "3. Order 42 is in the log, and $(value "SELECT cardinality(path) FROM inclusion_proof('audit', 'orders', '42')") hashes prove it to anyone who has the root:"
sql "SELECT leaf_index, tree_size, left(leaf_hash::text, 18) || '…' AS leaf_hash,
            verify_inclusion(leaf_hash, leaf_index, tree_size, path, root_hash) AS proven
       FROM inclusion_proof('audit', 'orders', '42')"

say "4. The log of 1,000 entries is a prefix of today's: nothing was rewritten since."
sql "SELECT old_size, new_size, cardinality(path) AS hashes,
            verify_consistency(old_size, new_size, old_root, new_root, path) AS proven
       FROM consistency_proof('audit', 1000)"

say "5. Every row is read and hashed again: no finding."
psql -d shop -c "SELECT kind, source_table, source_key, leaf_index, detail FROM verify_log('audit')" 2>&1

say "6. Captured by triggers, every change is an entry: what, when, by whom."
psql -d shop -q -c "INSERT INTO accounts VALUES ('DE02', 'Ada', 100)" -c "SET application_name = 'till 3'" \
    -c "UPDATE accounts SET balance = 80.50" -c "SELECT leaf_index FROM wait_for_inclusion('history', 'accounts', 'DE02')" >/dev/null
until [ "$(value "SELECT merkle_size('history')")" = 2 ]; do sleep 0.1; done
sql "SELECT leaf_index, operation, row_data->>'balance' AS balance, user_name, application_name FROM history('history', 'accounts', 'DE02')"

say "7. An attacker with superuser rights edits one old order, deletes another, slips in a third."
psql -d shop -q <<'SQL'
SET session_replication_role = replica;
UPDATE orders SET amount = amount + 1000 WHERE id = 4711;
DELETE FROM orders WHERE id = 815;
INSERT INTO orders (id, customer, amount) OVERRIDING SYSTEM VALUE VALUES (0, gen_random_uuid(), 99999.99);
SQL
psql -d shop -q -c "SELECT kind, source_table, source_key, leaf_index, detail FROM verify_log('audit') ORDER BY kind"
found=$(value "SELECT string_agg(kind || ' ' || source_key, ', ' ORDER BY kind) FROM verify_log('audit')" 2>/dev/null)
if [ "$found" != "deleted 815, modified 4711, unlogged 0" ]; then
    echo "verify_log did not name exactly these three: $found" >&2
    exit 1
fi
echo "Exactly these three."

say "The cluster is still running. Play on:"
echo "   $connect"
echo "   make demo-stop     # stops and deletes it"
