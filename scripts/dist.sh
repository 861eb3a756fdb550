#!/usr/bin/env bash
# dist.sh BUILT_PG_CONFIG HOST_PG_CONFIG PROGRAM FILE
#
# Packs what hosts need into a tar file that is unpacked at their root: the extension, as it is installed in the PostgreSQL of
# BUILT_PG_CONFIG, where the PostgreSQL of HOST_PG_CONFIG looks for it; the program merkle-log; and the examples.
set -euo pipefail
cd "$(dirname "$0")/.."
shopt -s globstar

built=$1 host=$2 program=$3 file=$4
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
# Whatever the umask and the owner of the sources.
put() { install -D -m "$1" "$2" "$tree$3"; }
put 755 "$("$built" --pkglibdir)/merkle_log.so" "$("$host" --pkglibdir)/merkle_log.so"
extension=extension/merkle_log
for path in "$("$built" --sharedir)/$extension"{.control,--*.sql}; do
    put 644 "$path" "$("$host" --sharedir)/extension/$(basename "$path")"
done
put 755 "$program" /usr/local/bin/merkle-log
for path in examples/{deployment,gateway,hub,monitor,monitoring,witness}/**; do
    [ -f "$path" ] && put 644 "$path" "/usr/local/share/merkle_log/$path"
done
mkdir -p "$(dirname "$file")"
tar -C "$tree" --owner=0 --group=0 --sort=name -czf "$file" usr
