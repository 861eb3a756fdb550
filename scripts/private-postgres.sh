#!/usr/bin/env bash
# private-postgres.sh PG_CONFIG PREFIX
#
# Copies a PostgreSQL installation to PREFIX, so that extensions can be installed and servers be run
# from there without touching the system's. PostgreSQL finds its directories relative to its own
# binary; PREFIX keeps the layout of the original below its common root.
set -euo pipefail

pg_config=$1
prefix=$2
if [ -e "$prefix" ] && [ "$(stat -c %u "$prefix")" != "$(id -u)" ]; then
    echo "$prefix belongs to someone else: set PREFIX to another directory." >&2
    exit 1
fi
bindir=$("$pg_config" --bindir)
root=${bindir%%/lib/*}
# What is installed there: the version, and the extensions that other packages have added since.
version="$("$pg_config" --version) $(ls "$("$pg_config" --pkglibdir)" "$("$pg_config" --sharedir)/extension" | cksum)"
stamp="$prefix/.complete"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$version" ] && exit 0

rm -rf "$prefix"
mkdir -p -m 755 "$prefix"
for dir in bindir pkglibdir sharedir; do
    from=$("$pg_config" --$dir)
    to="$prefix${from#"$root"}"
    mkdir -p "$to"
    cp -a "$from/." "$to/"
    rm -rf "$to/bitcode"
done
include=$("$pg_config" --includedir)
mkdir -p "$prefix$(dirname "${include#"$root"}")"
ln -s "$include" "$prefix${include#"$root"}"
private="$prefix${bindir#"$root"}/pg_config"
for dir in pkglibdir sharedir includedir-server; do
    found=$("$private" --$dir)
    case $found in
        "$prefix"/*) [ -d "$found" ] || { echo "$found is missing" >&2; exit 1; } ;;
        *) echo "$private does not know where it is: $found" >&2; exit 1 ;;
    esac
done
echo "$version" >"$stamp"
