#!/usr/bin/env bash
# Looks for names in the extension's scripts that another role could take over (pgspot): in the generated
# install script, and in each upgrade script. Every line it prints must stand in sql/pgspot.explained, with
# the reason why it is safe; a reason whose line is no longer printed fails too.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.9.4
venv=target/pgspot
[ "$("$venv/bin/pip" show pgspot 2>/dev/null | sed -n 's/^Version: //p')" = "$version" ] || {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "pgspot==$version"
}

mkdir -p target/schema
install_script=target/schema/install.sql
cargo pgrx schema "pg${PG:-15}" --no-default-features --features "pg${PG:-15}" --out "$install_script" >target/schema/log 2>&1 || { cat target/schema/log; exit 1; }

found=$(
    for script in "$install_script" sql/merkle_log--*--*.sql; do
        # pgspot's own exit code counts what is explained too.
        { "$venv/bin/pgspot" "$script" || true; } | sed -n "s/^\(PS[0-9]*: .*\) at line [0-9]*$/$(basename "$script") \1/p"
    done | sort -u
)
explained=$(grep -v '^#' sql/pgspot.explained | sed 's/ *|.*//' | sort -u)
unexplained=$(comm -23 <(echo "$found") <(echo "$explained") | sed '/^$/d')
obsolete=$(comm -13 <(echo "$found") <(echo "$explained") | sed '/^$/d')
[ -z "$unexplained" ] || { echo "pgspot finds what sql/pgspot.explained does not explain:" >&2; echo "$unexplained" >&2; }
[ -z "$obsolete" ] || { echo "sql/pgspot.explained explains what pgspot does not find:" >&2; echo "$obsolete" >&2; }
[ -z "$unexplained$obsolete" ]
echo "pgspot: $(echo "$found" | sed '/^$/d' | wc -l) findings, all explained"
