#!/usr/bin/env bash
# idle.sh: what a worker costs whose logs are idle: its processor time, user and system, as a share of one core, while it has
# LOGS logs with two sources each, verified and with nothing to log. Once with order columns that sequences fill, and once
# with order columns that the clock fills.
#
#   LOGS=500 SECONDS_EACH=60 make bench-idle
set -euo pipefail
logs=${LOGS:-500}
each=${SECONDS_EACH:-60}
sql() { psql -Atqc "$1"; }

sql "CREATE EXTENSION merkle_log"

# Processor time of the worker so far, in clock ticks. The command's name, in parentheses, has spaces.
ticks() {
    local pid
    pid=$(sql "SELECT pid FROM pg_stat_activity WHERE backend_type = 'merkle_log worker'")
    sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }'
}

# Makes the logs, whose sources have an order column of that type, and waits until nothing is left to be done.
make_logs() {
    local column=$1 prefix=$2
    for from in $(seq 1 50 "$logs"); do
        sql "DO \$\$BEGIN FOR i IN $from..LEAST($logs, $from + 49) LOOP
                 PERFORM create_log('$prefix' || i);
                 FOR j IN 1..2 LOOP
                     EXECUTE format('CREATE TABLE %I (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), note text)', '$prefix' || i || '_' || j);
                     EXECUTE format('CREATE INDEX ON %I (at, id)', '$prefix' || i || '_' || j);
                     PERFORM add_source('$prefix' || i, format('%I', '$prefix' || i || '_' || j)::regclass, '$column');
                     EXECUTE format('INSERT INTO %I (note) VALUES (''x''), (''y'')', '$prefix' || i || '_' || j);
                 END LOOP;
             END LOOP; END\$\$"
    done
    until [ "$(sql "SELECT COALESCE(bool_and(COALESCE(h.size, 0) = 4 AND v.ended_at IS NOT NULL AND v.stage IS NULL), false)
                      FROM verification_logs l
                      LEFT JOIN merkle_verification v USING (log_id)
                      LEFT JOIN (SELECT log_id, max(tree_size) AS size FROM merkle_tree_head GROUP BY 1) h USING (log_id)
                     WHERE l.log_id > 0")" = t ]; do sleep 1; done
    sql "VACUUM ANALYZE"
    sleep 15
}

measure() {
    local before after
    before=$(ticks)
    sleep "$each"
    after=$(ticks)
    awk -v what="$1" -v logs="$logs" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v each="$each" \
        'BEGIN { printf "| %d logs, %d idle sources, order by %s | %.2f s in %d s | %.2f %% | ≤ 2 %% |\n", logs, 2 * logs, what, ticks / hz, each, 100 * ticks / hz / each }'
}

echo "| | processor time of the worker | of a core | bar |"
echo "| --- | --- | --- | --- |"
make_logs id sequence
measure sequence
sql "SELECT drop_log('sequence' || i, true) FROM generate_series(1, $logs) i" >/dev/null
make_logs at clock
measure clock
