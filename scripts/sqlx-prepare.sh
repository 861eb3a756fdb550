#!/usr/bin/env bash
# sqlx-prepare.sh [--check]: what a server says about every query of crates/catbird_db, for builds without
# one. Run beside a server (scripts/with-postgres.sh). --check: only fails if that is not what is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
crate=crates/catbird_db
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
createdb sqlx_prepare
export DATABASE_URL="${TEST_DATABASE_URL/\/postgres?/\/sqlx_prepare?}"
psql -q -d sqlx_prepare -c 'CREATE EXTENSION merkle_log'
for migration in "$crate"/migrations/*.sql; do
    psql -q -d sqlx_prepare -v ON_ERROR_STOP=1 -1 -f "$migration" >/dev/null
done
touch "$crate/src/lib.rs" # the macros run when the crate is compiled
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" cargo check --quiet -p catbird_db --lib
if [ "${1:-}" = --check ]; then
    diff -r "$fresh" "$crate/.sqlx" >/dev/null || { echo "$crate/.sqlx is not what the server says: run make sqlx-prepare" >&2; exit 1; }
else
    rm -rf "$crate/.sqlx"
    mkdir "$crate/.sqlx"
    cp "$fresh"/*.json "$crate/.sqlx"
fi
