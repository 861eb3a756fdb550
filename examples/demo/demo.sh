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

bundle=$(mktemp)
trap 'rm -f "$bundle"' EXIT

# Writes an Ed25519 key in the form that `merkle-log keygen` gives it (Go's note package).
signing_key() {
    local name=$1 file=$2 der id
    der=$(mktemp)
    openssl genpkey -algorithm ed25519 -outform DER -out "$der"
    id=$({ printf '%s\n\001' "$name"; openssl pkey -inform DER -in "$der" -pubout -outform DER | tail -c 32; } | sha256sum | head -c 8)
    printf 'PRIVATE+KEY+%s+%s+%s\n' "$name" "$id" "$({ printf '\001'; tail -c 32 "$der"; } | base64)" >"$file"
    chmod 600 "$file"
    [ "$(id -u)" -ne 0 ] || chown "$server_user" "$file"
    rm "$der"
}

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

say "7. The log signs its head, and the proof of order 4711 leaves the database as a file."
signing_key demo.example "$dir/signing.key"
psql -d shop -q -c "ALTER SYSTEM SET merkle_log.signing_key_file = '$dir/signing.key'" \
    -c "ALTER SYSTEM SET merkle_log.origin_prefix = 'demo.example'" -c "SELECT pg_reload_conf()" >/dev/null
until value "SELECT checkpoint('audit')" >/dev/null 2>&1; do sleep 0.1; done
sql "SELECT checkpoint('audit')"
value "SELECT json FROM proof_bundle_of('audit', 'orders', 4711)" >"$bundle"
key=$(value "SELECT checkpoint_key('audit')")
echo "The key that verifies it, known to everybody: $key"

say "8. An attacker with superuser rights edits one old order, deletes another, slips in a third."
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

say "9. Nobody has to call verify_log: the background worker reads everything again and again, and has seen them too."
waited=0
until [ "$(value "SELECT detail FROM merkle_log_health() WHERE check_name = 'findings' AND object = 'audit' AND NOT ok")" = \
        "3 findings are open: 1 deleted, 1 modified, 1 unlogged" ]; do
    waited=$((waited + 1))
    if [ $waited -gt 600 ]; then value "SELECT * FROM merkle_log_health()" >&2; exit 1; fi
    sleep 0.1
done
sql "SELECT check_name, ok, detail FROM merkle_log_health() WHERE check_name = 'findings' AND object = 'audit'"

say "10. Without the database and without our code: a Python file, that key, and the order as it was."
echo "   python3 examples/verify/python/verify.py KEY bundle.json"
python3 "$here/../verify/python/verify.py" "$key" "$bundle"

say "11. In a browser, which checks the proof itself: an order that nobody has touched, and all else."
start_gateway
echo "   $address/page/log/audit/row?table=orders&key=4712"
echo "   $address/"

say "The cluster is still running. Play on:"
echo "   $connect"
echo "   make demo-stop     # stops and deletes it"
