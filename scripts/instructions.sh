#!/usr/bin/env bash
# Counts the processor instructions of the crates' hot paths, which unlike time come out the same
# each run, and compares them with benches/instructions.txt. `--write` records them anew.
set -euo pipefail
cd "$(dirname "$0")/.."
expected=benches/instructions.txt
tolerance=5 # per cent: compilers and libraries differ a little

binary() { # the program of a crate's bench
    cargo bench -q -p "$1" --bench instructions --no-run --message-format json |
        python3 -c 'import json, sys
for line in sys.stdin:
    artifact = json.loads(line)
    if artifact.get("target", {}).get("name") == "instructions" and artifact.get("executable"): print(artifact["executable"])'
}
count() { # PROGRAM WORK [OPTION...]
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "${@:3}" "$1" "$2" 2>&1 | awk '/Collected/ { print $4 }'
}
counts=$(
    for crate in merkle-tree leaf-format geometric_ledger; do
        program=$(binary $crate)
        options=()
        case $crate in
        merkle-tree) pieces="append leaf-hashes tile-hash verify-inclusion" ;;
        leaf-format) pieces="encode decode" ;;
        # The ledger has threads of its own, whose work is not the same each run.
        *)
            pieces="get get-many update transfer recorded-transfer"
            options=(--collect-atstart=no --toggle-collect=counted_work)
            ;;
        esac
        idle=$(count "$program" nothing "${options[@]}")
        for piece in $pieces; do echo "$crate/$piece $(($(count "$program" "$piece" "${options[@]}") - idle))"; done
    done
)
if [ "${1:-}" = --write ]; then
    echo "$counts" | tee "$expected"
    exit
fi
echo "$counts" | awk -v tolerance=$tolerance '
    NR == FNR { was[$1] = $2; next }
    {
        if (!($1 in was)) { print $1 ": not on record"; bad = 1; next }
        change = 100 * ($2 - was[$1]) / was[$1]
        printf "%-30s %12d %+6.1f %%\n", $1, $2, change
        if (change > tolerance) { print "  slower than on record: " was[$1]; bad = 1 }
        if (change < -tolerance) print "  faster than on record: run scripts/instructions.sh --write"
        seen++
    }
    END { if (bad || seen != length(was)) exit 1 }' "$expected" -
