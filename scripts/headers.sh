#!/usr/bin/env bash
# headers.sh PG_CONFIG…: the declarations of src/pg/raw.rs that the bindings leave out are those of each
# server's headers, and src/pg/headers.c forgets none of them.
set -euo pipefail
cd "$(dirname "$0")/.."

declared=$(sed -n '/^mod unbound/,/^}/s/.*pub fn \([A-Za-z_]*\).*/\1/p' src/pg/raw.rs | sort)
checked=$(sed -n 's/^DECLARED(\([A-Za-z_]*\),.*/\1/p' src/pg/headers.c | sort)
[ -n "$declared" ] && diff <(echo "$declared") <(echo "$checked") || {
    echo "src/pg/raw.rs declares other functions by hand than src/pg/headers.c checks" >&2
    exit 1
}
if grep -rlE --include=*.rs 'unsafe extern "C(-unwind)?" \{' src | grep -v '^src/pg/raw.rs$'; then
    echo "functions are declared by hand outside src/pg/raw.rs" >&2
    exit 1
fi
for pg_config in "$@"; do
    cc -fsyntax-only -Wall -Werror -I"$("$pg_config" --includedir-server)" src/pg/headers.c
    echo "declarations agree with the headers of $("$pg_config" --version)"
done
