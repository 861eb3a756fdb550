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

say "1. Eight writers insert 100,000 rows into two tables while batches are logged."
writers=()
for writer in 1 2 3 4 5 6 7 8; do
    psql -d shop -q -v writer=$writer -f "$here/writer.sql" &
    writers+=($!)
done
batches=0
while [ -n "$(jobs -rp)" ]; do
    value "SELECT process_next_batch('audit')" >/dev/null 2>&1
    batches=$((batches + 1))
done
for writer in "${writers[@]}"; do wait "$writer"; done
until [ "$(value "SELECT entries FROM process_next_batch('audit')")" = 0 ]; do batches=$((batches + 1)); done
echo "$(value "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM payments)") rows committed, $(value "SELECT merkle_size('audit')") entries logged, in $batches batches."

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

say "6. An attacker with superuser rights edits one old order, deletes another, slips in a third."
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
