#!/usr/bin/env bash
# The root directory of a host with Debian 12 and the packages that docs/deployment.md installs, in target/deployment/root:
# the test of that guide boots its hosts from copies of it. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

root=target/deployment/root
packages=systemd,systemd-sysv,ca-certificates,curl,nginx-light,postgresql-15
[ "$(cat "$root.complete" 2>/dev/null)" = "$packages" ] && exit 0
echo "making a root directory with $packages"
rm -rf "$root" "$root.complete"
mkdir -p "$root"
debootstrap --variant=minbase --include="$packages" bookworm "$root" http://deb.debian.org/debian >"$root.log" 2>&1 ||
    { tail -20 "$root.log"; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb
echo "$packages" >"$root.complete"
