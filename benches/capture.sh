#!/usr/bin/env bash
# capture.sh: what trigger capture costs its writers, as a ratio against the same table
# without it, measured alternately on one cluster with the worker running.
#
#   ROUNDS=5 SECONDS_EACH=5 ROWS=1000000 CLIENTS="1 8" make bench-capture
set -euo pipefail
rounds=${ROUNDS:-5}
each=${SECONDS_EACH:-5}
rows=${ROWS:-1000000}
clients=${CLIENTS:-1 8}
dir=$PGHOST
sql() { psql -Atqc "$1"; }
columns='(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now(), note text, data jsonb)'
sql "CREATE EXTENSION merkle_log; CREATE TABLE plain $columns; CREATE TABLE captured $columns;
     SELECT create_log('audit'); SELECT add_source('audit', 'captured', capture => 'trigger')" >/dev/null
for table in plain captured; do
    insert="INSERT INTO $table (note, data) VALUES ('note', '{\"sku\": 4711}');"
    echo "$insert" >"$dir/$table.sql"
    { echo 'BEGIN;'; for _ in 1 2 3 4 5; do echo "$insert"; done; echo 'COMMIT;'; } >"$dir/$table-5.sql"
done
drained() { until [ "$(sql 'SELECT count(*) FROM merkle_pending')" = 0 ]; do sleep 0.1; done; }
median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
tps() { pgbench -n -c "$1" -j 2 -T "$each" -f "$dir/$2.sql" | awk '/^tps/ { print $3 }'; }
seconds() {
    local from=$EPOCHREALTIME
    sql "INSERT INTO $1 (note, data) SELECT 'note ' || i, jsonb_build_object('sku', i) FROM generate_series(1, $rows) i"
    awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
echo "| what | without | with capture | ratio | bar |"
echo "| --- | --- | --- | --- | --- |"
for c in $clients; do
    for round in $(seq "$rounds"); do
        for table in plain captured; do tps "$c" $table >>"$dir/tps-$c-$table"; drained; done
    done
    a=$(median <"$dir/tps-$c-plain"); b=$(median <"$dir/tps-$c-captured")
    awk -v c="$c" -v a="$a" -v b="$b" 'BEGIN { printf "| single-row INSERT, %d client(s), TPS | %.0f | %.0f | %.2f | ≥ 0.85 |\n", c, a, b, b / a }'
done
for round in $(seq "$rounds"); do
    for table in plain captured; do tps 1 $table-5 >>"$dir/tps-5-$table"; drained; done
done
a=$(median <"$dir/tps-5-plain"); b=$(median <"$dir/tps-5-captured")
awk -v a="$a" -v b="$b" 'BEGIN { printf "| transactions of five INSERTs, 1 client, TPS | %.0f | %.0f | %.2f | |\n", a, b, b / a }'
for round in $(seq "$rounds"); do
    for table in plain captured; do
        sql "TRUNCATE plain; VACUUM" 2>/dev/null || true
        sql "CHECKPOINT"
        seconds $table >>"$dir/bulk-$table"; drained
    done
done
a=$(median <"$dir/bulk-plain"); b=$(median <"$dir/bulk-captured")
awk -v n="$rows" -v a="$a" -v b="$b" 'BEGIN { printf "| INSERT … SELECT of %d rows, s | %.2f | %.2f | %.2f | ≤ 2.0 |\n", n, a, b, b / a }'
# How soon the worker logs a change, where its interval does not hold it back.
sql "SELECT alter_log(log_name, run_interval => '10 ms') FROM verification_logs WHERE log_id > 0" >/dev/null
for i in $(seq 200); do
    sql "INSERT INTO captured (note) VALUES ('light') RETURNING id" >/dev/null
    sleep 0.02
done
drained
sql "SELECT format('| commit to logged at light load, median ms | | %s | | < 50 |', round((1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY
        extract(epoch FROM h.created_at - s.statement_at)))::numeric, 1))
       FROM (SELECT * FROM merkle_statement ORDER BY from_leaf_index DESC LIMIT 200) s
       CROSS JOIN LATERAL (SELECT created_at FROM merkle_tree_head h WHERE h.log_id = s.log_id AND h.tree_size > s.from_leaf_index ORDER BY tree_size LIMIT 1) h"
