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
    as_server "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}

start_cluster() {
    mkdir -m 755 "$dir"
    [ "$(id -u)" -ne 0 ] || chown "$server_user" "$dir"
    as_server "$bin/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >/dev/null
    as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w \
        -o "-c listen_addresses='' -c unix_socket_directories='$dir' -c shared_preload_libraries=merkle_log" start >/dev/null
}
