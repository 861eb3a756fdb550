#!/usr/bin/env bash
# gateway.sh MERKLE_LOG
#
# What the gateway serves on loopback, beside the database that it asks, on the same processors: requests a second and
# how long they take, with wrk. Run beside a cluster: scripts/with-postgres.sh PG_CONFIG benches/gateway.sh PROGRAM.
set -euo pipefail
program=$1
seconds=${SECONDS_EACH:-10}
dir=$(mktemp -d /tmp/merkle_log-gateway-XXXXXX)
gateway=
trap '[ -z "$gateway" ] || kill "$gateway"; rm -rf "$dir"' EXIT

"$program" keygen --name example.com/bench --out "$dir/key" >/dev/null
[ -z "$AS_SERVER" ] || { chmod 755 "$dir"; chown postgres "$dir/key"; }
psql -qAtX -v ON_ERROR_STOP=1 >/dev/null <<SQL
ALTER SYSTEM SET merkle_log.signing_key_file = '$dir/key';
SELECT pg_reload_conf();
CREATE EXTENSION merkle_log;
CREATE TABLE orders (id bigint PRIMARY KEY, note text);
SELECT create_log('audit', batch_size => 1000000, origin => 'example.com/bench', find_by_hash => true);
SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark');
INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 1000000) i;
SELECT process_next_batch('audit');
SELECT checkpoint('audit');
SQL
"$program" export --no-sign audit "$dir/exported" >/dev/null
cat >"$dir/gateway.toml" <<TOML
public_logs = ["audit"]
[tiles]
audit = "$dir/exported"
[limits]
rate_per_client = 10000000
burst_per_client = 10000000
TOML
RUST_LOG=warn "$program" serve --config "$dir/gateway.toml" --listen 127.0.0.1:18181 &
gateway=$!
until curl -sf http://127.0.0.1:18181/health/ready >/dev/null; do sleep 0.1; done

# The paths of one kind, each request another one.
cat >"$dir/proofs.lua" <<'LUA'
math.randomseed(7)
request = function() return wrk.format("GET", "/logs/audit/proof?index=" .. math.random(0, 999999)) end
LUA
cat >"$dir/tiles.lua" <<'LUA'
math.randomseed(7)
request = function()
  local tile = math.random(0, 3905)
  local path = tile < 1000 and string.format("%03d", tile) or string.format("x%03d/%03d", math.floor(tile / 1000), tile % 1000)
  return wrk.format("GET", "/logs/audit/tile/0/" .. path)
end
LUA
measure() {
    local name=$1 connections=$2 script=$3
    wrk -t1 -c"$connections" -d"${seconds}s" --latency -s "$dir/$script" http://127.0.0.1:18181/ >"$dir/out"
    awk -v name="$name" '
        /Requests\/sec/ { rate = $2 } / 50%/ { p50 = $2 } / 99%/ { p99 = $2 }
        /Non-2xx/ { errors = $NF } /Socket errors/ { errors = errors " " $0 }
        END { printf "%-34s %10.0f/s   p50 %9s   p99 %9s   errors %s\n", name, rate, p50, p99, errors == "" ? "0" : errors }' "$dir/out"
}
measure "warming up" 4 proofs.lua >/dev/null
measure "proofs by index, 16 connections" 16 proofs.lua
measure "one proof at a time" 1 proofs.lua
measure "tiles from files, 16 connections" 16 tiles.lua
