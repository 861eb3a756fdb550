#!/usr/bin/env bash
# outside.sh: what leaves the server, in its pace: an export to a directory beside COPY of the same bytes, the check of
# what was exported, a bundle made and checked, and what it costs batches that hashes can be found.
#
#   ROUNDS=3 ENTRIES=2000000 make bench-outside
set -euo pipefail
rounds=${ROUNDS:-3}
entries=${ENTRIES:-2000000}
program=$1
dir=$PGHOST
out=$(mktemp -d "${TMPDIR:-/tmp}/merkle_log-outside-XXXXXX")
trap 'rm -rf "$out"' EXIT
export PGOPTIONS="-c client_min_messages=warning"
sql() { psql -v ON_ERROR_STOP=1 -Atqc "$1"; }
seconds() {
    local from=$EPOCHREALTIME
    "$@" >/dev/null
    awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
median() { sort -n "$dir/$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
note() { echo "$2" >>"$dir/$1"; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }
row() { echo "| $1 | $2 | $3 | $4 | $5 |"; }
rate() { calc '%.0f entries/s' "$entries / $1"; }

echo "Rows: $entries of (bigint, timestamptz, text, jsonb); $rounds rounds; PostgreSQL $(postgres -V | awk '{ print $3 }'), $(nproc) processors, $(grep -m 1 'model name' /proc/cpuinfo | sed 's/.*: //')."
echo
echo "| what | it | beside it | ratio | bar |"
echo "| --- | --- | --- | --- | --- |"

"$program" keygen --name example.com/audit --out "$dir/key" >/dev/null
[ "$(id -u)" -ne 0 ] || chown postgres "$dir/key"
# Left to the postmaster, which reads the configuration again.
sql "ALTER SYSTEM SET merkle_log.signing_key_file = '$dir/key'"
sql "SELECT pg_reload_conf()" >/dev/null
until [ "$(sql "SELECT current_setting('merkle_log.signing_key_file', true)")" = "$dir/key" ]; do sleep 0.1; done

# Batches with and without the index of hashes, each round in an extension of its own; the last one's log is exported.
sql "CREATE TABLE src (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), note text, doc jsonb);
     INSERT INTO src (id, note, doc) SELECT i, 'order number ' || i,
         jsonb_build_object('amount', i % 1000, 'currency', 'EUR', 'paid', i % 2 = 0) FROM generate_series(1, $entries) i"
sql "VACUUM ANALYZE src"
for _ in $(seq "$rounds"); do
    for find in true false; do
        sql "SET client_min_messages = error; DROP EXTENSION IF EXISTS merkle_log CASCADE; CREATE EXTENSION merkle_log"
        sql "SELECT create_log('audit', batch_size => 100000000, origin => 'example.com/audit', find_by_hash => $find);
             SELECT add_source('audit', 'src', order_column => 'id', capture => 'watermark', append_only => true, store_leaf_data => true)" >/dev/null
        sql CHECKPOINT
        note "batch-$find" "$(seconds sql "SELECT process_next_batch('audit')")"
    done
done
sql "VACUUM ANALYZE"
sql "SELECT checkpoint('audit')" >/dev/null
key=$(sql "SELECT checkpoint_key('audit')")

# Everything is read once before it is measured.
same="SELECT m.leaf_index, m.leaf_hash, d.leaf_data FROM merkle_log m JOIN merkle_leaf_data d USING (log_id, leaf_index)
       WHERE m.log_id = 1 ORDER BY m.leaf_index"
# Each round has a directory of its own, deleted at the end: for seconds after files were deleted, ext4 spends more on
# finding an inode that was not used lately than on all else of making a file.
exported() { "$program" export audit "$out/exported$1"; }
verified() { "$program" verify --key "$key" "$out/exported$1"; }
copied() { sql "COPY ($same) TO PROGRAM 'cat > $dir/copied.bin' (FORMAT binary)"; }
exported 0 >/dev/null
for round in $(seq "$rounds"); do
    sync
    note copied "$(seconds copied)"
    sync
    note exported "$(seconds exported "$round")"
    note verified "$(seconds verified "$round")"
done
e=$(median exported) c=$(median copied) v=$(median verified)
row "export to a directory, COPY of the same bytes to a file" "$(rate "$e")" "$(rate "$c")" "$(calc %.2f "$c / $e")" "≥ 1000000 entries/s"
row "verify of the exported directory" "$(rate "$v")" "" "" "≥ 2000000 entries/s"

# One bundle, in the server: made, and checked by the log's key.
bundles=$(sql "CREATE TEMP TABLE t (made float8, checked float8);
    DO \$\$ DECLARE a timestamptz; b timestamptz; bundle text; ok boolean; BEGIN FOR i IN 1..2000 LOOP
        a := clock_timestamp();
        SELECT json INTO bundle FROM proof_bundle_of('audit', 'src', (1 + random() * ($entries - 1))::bigint);
        b := clock_timestamp();
        SELECT valid INTO ok FROM verify_bundle(bundle, '$key');
        INSERT INTO t VALUES (extract(epoch FROM b - a), extract(epoch FROM clock_timestamp() - b));
        IF NOT ok THEN RAISE 'a bundle does not hold'; END IF;
    END LOOP; END \$\$;
    SELECT round((1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY made))::numeric, 2),
           round((1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY checked))::numeric, 2) FROM t" | tail -1)
IFS='|' read -r made checked <<<"$bundles"
row "one bundle made and checked in SQL, medians" "$made ms + $checked ms" "" "" "< 5 ms"
sql "SELECT json FROM proof_bundle_of('audit', 'src', 42)" >"$out/bundle.json"
for _ in $(seq 20); do note checked "$(seconds "$program" verify --key "$key" "$out/bundle.json")"; done
row "merkle-log verify of one bundle, with the program's start" "$(calc '%.1f ms' "1000 * $(median checked)")" "" "" ""

w=$(median batch-true) o=$(median batch-false)
row "process_next_batch with find_by_hash, without" "$(rate "$w")" "$(rate "$o")" "$(calc %.2f "$o / $w")" ""
