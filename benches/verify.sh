#!/usr/bin/env bash
# verify.sh: what continuous verification costs writers: pgbench (TPC-B-like) without it and with it, alternately, while
# the worker verifies a log of ROWS rows all the time.
#
#   ROUNDS=7 SECONDS_EACH=10 ROWS=1000000 CLIENTS="1 4" RATES="2000 20000" make bench-verify
set -euo pipefail
rounds=${ROUNDS:-7}
each=${SECONDS_EACH:-10}
rows=${ROWS:-1000000}
clients=${CLIENTS:-1 4}
rates=${RATES:-2000 20000}
sql() { psql -Atqc "$1"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

pgbench -i -q -s 10 2>/dev/null
sql "CREATE EXTENSION merkle_log;
     CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now(), note text, data jsonb);
     SELECT create_log('audit', verify_interval => '10 ms'); SELECT add_source('audit', 'orders', 'id');
     INSERT INTO orders (note, data) SELECT 'note ' || i, jsonb_build_object('sku', i) FROM generate_series(1, $rows) i" >/dev/null
until [ "$(sql "SELECT merkle_size('audit')")" = "$rows" ]; do sleep 0.5; done
sql "VACUUM ANALYZE"
sql "CHECKPOINT"

read_rows() { sql "SELECT COALESCE(sum(rows_read), 0) FROM merkle_verification"; }
set_rate() {
    sql "ALTER SYSTEM SET merkle_log.verify_rate = $1"
    sql "SELECT pg_reload_conf()" >/dev/null
    sleep 1
}
tps() { pgbench -n -c "$1" -j 2 -T "$each" | awk '/^tps/ { print $3 }'; }

echo "| clients | rate | TPS without | TPS with | ratio | rows verified per second | bar |"
echo "| --- | --- | --- | --- | --- | --- | --- |"
for c in $clients; do
    for rate in $rates; do
        for _ in $(seq "$rounds"); do
            set_rate 0
            tps "$c" >>"$dir/without-$c-$rate"
            set_rate "$rate"
            before=$(read_rows)
            tps "$c" >>"$dir/with-$c-$rate"
            echo $((($(read_rows) - before) / each)) >>"$dir/rows-$c-$rate"
        done
        awk -v c="$c" -v r="$rate" -v a="$(median <"$dir/without-$c-$rate")" -v b="$(median <"$dir/with-$c-$rate")" \
            -v n="$(median <"$dir/rows-$c-$rate")" \
            'BEGIN { printf "| %d | %d | %.0f | %.0f | %.3f | %d | %s |\n", c, r, a, b, b / a, n, r == 2000 ? "≥ 0.98" : "" }'
    done
done
