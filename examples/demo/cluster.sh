# Sourced with the path of a pg_config: starting and stopping the demo's private cluster.

bin=$(dirname "$1")
dir=/tmp/merkle_log-demo-$(id -un)
export PATH="$bin:$PATH" PGHOST="$dir" PGUSER=postgres PSQLRC=/dev/null
connect="$bin/psql -h $dir -U postgres shop"

# PostgreSQL refuses to run as root.
if [ "$(id -u)" -eq 0 ]; then
    as_server() { (cd / && runuser -u postgres -- "$@"); }
    server_user=postgres
else
    as_server() { "$@"; }
    server_user=$(id -un)
fi

stop_cluster() {
    [ -d "$dir" ] || return 0
    if [ "$(stat -c %U "$dir")" != "$server_user" ]; then
        echo "$dir belongs to someone else" >&2
        return 1
    fi
    stop_gateway
    as_server "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}

# Serves the demo's log to browsers on this machine, on any free port; sets `address`.
start_gateway() {
    local program=${MERKLE_LOG:-$here/../../target/release/merkle-log}
    printf 'public_logs = ["audit"]\n' >"$dir/gateway.toml"
    PGDATABASE=shop setsid "$program" --json serve --config "$dir/gateway.toml" --listen 127.0.0.1:0 \
        >/dev/null 2>"$dir/gateway.log" </dev/null &
    echo $! >"$dir/gateway.pid"
    local port="" waited=0
    until port=$(sed -n 's/.*"listening".*"address":"127.0.0.1:\([0-9]*\)".*/\1/p' "$dir/gateway.log") && [ -n "$port" ]; do
        if [ $((waited += 1)) -gt 300 ] || ! kill -0 "$(cat "$dir/gateway.pid")" 2>/dev/null; then
            cat "$dir/gateway.log" >&2
            return 1
        fi
        sleep 0.1
    done
    address=http://127.0.0.1:$port
}

stop_gateway() {
    local pid
    pid=$(cat "$dir/gateway.pid" 2>/dev/null) || return 0
    # The number may be another process's by now.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != merkle-log ] || kill "$pid"
}

start_cluster() {
    mkdir -m 755 "$dir"
    [ "$(id -u)" -ne 0 ] || chown "$server_user" "$dir"
    as_server "$bin/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >/dev/null
    as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w \
        -o "-c listen_addresses='' -c unix_socket_directories='$dir' -c shared_preload_libraries=merkle_log -c merkle_log.verify_rate=200000" start >/dev/null
}
