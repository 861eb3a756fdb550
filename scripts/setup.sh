#!/usr/bin/env bash
# Installs what building and testing need and is missing: Debian packages, cargo-pgrx; for `lint` cargo-deny,
# for `server` what running a server of another major needs, cargo-nextest among it; for `test` that and Go, Node, a Python package, Chromium, tmux and Prometheus; PostgreSQL clients of other languages, object stores
# and schemathesis in target/clients; and the root directory of the hosts that the deployment guide is followed on.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(python3 openssl postgresql-15 postgresql-15-cron postgresql-server-dev-15 clang libclang-dev gcc make pkg-config libssl-dev valgrind)
[ -n "${1:-}" ] && packages+=(python3-venv)
[ "${1:-}" = test ] && packages+=(golang-go golang-golang-x-mod-dev chromium chromium-driver tmux prometheus prometheus-node-exporter debootstrap iproute2 systemd systemd-container)
[ "${1:-}" = test ] && ! command -v node >/dev/null && packages+=(nodejs)
[ "${1:-}" = test ] && ! command -v npm >/dev/null && packages+=(npm)
[ "$(id -u)" -eq 0 ] && packages+=(sudo)
missing=()
for package in "${packages[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null && ! [ -t 0 ]; then
            echo "Missing Debian packages, and no way to become root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "Rust is missing: install 1.95 or later from your distribution or with rustup." >&2
    exit 1
fi
# Tools that are themselves built here are built fast rather than to be fast.
tool() {
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_TARGET_DIR=target/tools \
        cargo install --debug --locked "$@"
}
if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx 0.18.1" ]; then
    tool cargo-pgrx --version 0.18.1
fi
if [[ "${1:-}" == @(test|server) ]] && ! cargo nextest --version >/dev/null 2>&1; then
    tool cargo-nextest --version 0.9.143
fi
# Each in the version that the tests were written for; the stamp says which are there.
if [ "${1:-}" = test ]; then
    python=("psycopg[binary]==3.3.9" asyncpg==0.32.0 "moto[server]==5.2.5" azure-storage-blob==12.31.1 schemathesis==4.32.0)
    node=(pg@8.23.1 azurite@3.37.0)
    clients="${python[*]} ${node[*]}"
    if [ "$(cat target/clients/.complete 2>/dev/null)" != "$clients" ]; then
        echo "installing $clients"
        rm -rf target/clients
        mkdir -p target/clients/node
        python3 -m venv target/clients/python
        target/clients/python/bin/pip install -q "${python[@]}"
        npm install --silent --prefix target/clients/node "${node[@]}"
        echo "$clients" >target/clients/.complete
    fi
fi
if [ "${1:-}" = test ]; then
    scripts/interop-python.sh
    # What boots hosts must be root, as whom the test of the guide runs too.
    if [ "$(id -u)" -eq 0 ]; then scripts/deployment-root.sh; else sudo -n scripts/deployment-root.sh; fi
fi
if [ "${1:-}" = lint ] && ! cargo deny --version >/dev/null 2>&1; then
    tool cargo-deny
fi
