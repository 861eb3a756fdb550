#!/usr/bin/env bash
# stop.sh PG_CONFIG: stops the demo's cluster and deletes it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh" "$1"
stop_cluster
echo "The demo's cluster is gone."
