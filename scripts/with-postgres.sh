#!/usr/bin/env bash
# with-postgres.sh PG_CONFIG COMMAND…
#
# Runs a command beside a private cluster that is gone when the command ends. TEST_DATABASE_URL names its
# database `postgres`, PGHOST, PGUSER and PGDATA its socket, superuser and directory, AS_SERVER what runs
# pg_ctl. CONF holds lines of configuration.
set -euo pipefail
bin=$(dirname "$1")
shift
dir=$(mktemp -d /tmp/merkle_log-with-XXXXXX)
chmod 755 "$dir"
export AS_SERVER=
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$dir"
    AS_SERVER="runuser -u postgres --"
fi
as_server() { (cd / && $AS_SERVER "$@"); }
trap 'as_server "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1; rm -rf "$dir"' EXIT
as_server "$bin/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
shared_preload_libraries = 'merkle_log'
merkle_log.databases = ''
max_connections = 200
shared_buffers = '512MB'
max_wal_size = '8GB'
${CONF:-}
CONF
as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null || { cat "$dir/log" >&2; exit 1; }
# Before version 15 everyone may create objects in the schema public, where the extension refuses to be then.
for database in template1 postgres; do
    "$bin/psql" -X -q -h "$dir" -U postgres -d "$database" -c 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'
done
export PATH="$bin:$PATH" PGHOST="$dir" PGDATA="$dir/data" PGUSER=postgres PGDATABASE=postgres PSQLRC=/dev/null
export TEST_DATABASE_URL="postgres:///postgres?host=$dir&user=postgres"
"$@"
