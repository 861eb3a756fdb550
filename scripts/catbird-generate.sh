#!/usr/bin/env bash
# catbird-generate.sh [--check]: what follows from the migrations of crates/catbird_db: what a server says
# about every query, for builds without one (.sqlx), and the schema reference (docs/catbird-db-schema.md).
# Run beside a server (scripts/with-postgres.sh). --check: only fails if that is not what is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
crate=crates/catbird_db
reference=docs/catbird-db-schema.md
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
createdb catbird_generate
export DATABASE_URL="${TEST_DATABASE_URL/\/postgres?/\/catbird_generate?}"
psql() { command psql -q -d catbird_generate -v ON_ERROR_STOP=1 "$@"; }
for migration in "$crate"/migrations/*.sql; do psql -1 -f "$migration" >/dev/null; done
psql -At -f scripts/catbird-schema.sql >"$fresh/reference"
psql -c 'CREATE EXTENSION merkle_log'
touch "$crate/src/lib.rs" # the macros run when the crate is compiled
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" cargo check --quiet -p catbird_db --lib
mkdir "$fresh/.sqlx"
mv "$fresh"/*.json "$fresh/.sqlx"
if [ "${1:-}" = --check ]; then
    diff -r "$fresh/.sqlx" "$crate/.sqlx" && diff "$fresh/reference" "$reference" ||
        { echo "not what the migrations say: run make catbird-generate" >&2; exit 1; }
else
    rm -rf "$crate/.sqlx"
    mv "$fresh/.sqlx" "$crate/.sqlx"
    mv "$fresh/reference" "$reference"
fi
