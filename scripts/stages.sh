#!/usr/bin/env bash
# stages.sh TARGET…: makes one target after another, says how long each took, and then which tests took longest.
set -euo pipefail
cd "$(dirname "$0")/.."
report=target/nextest/${NEXTEST_PROFILE:-default}/junit.xml
rm -f "$report"
times=
finish() {
    printf '\nseconds  stage\n%s%7d  in total\n\n' "$times" $SECONDS
    [ ! -f "$report" ] || scripts/slowest.py "$report"
}
trap finish EXIT
for stage in "$@"; do
    start=$SECONDS
    echo "== $stage"
    status=0
    "${MAKE:-make}" --no-print-directory "$stage" || status=$?
    times+=$(printf '%7d  %s' $((SECONDS - start)) "$stage")$'\n'
    [ $status -eq 0 ] || { echo "FAILED: $stage" >&2; exit $status; }
done
