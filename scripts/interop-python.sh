#!/usr/bin/env bash
# The Python package aics-tlog, which the interoperability tests ask, in target/interop. It wants Python 3.12
# in name only: its code runs on Debian's 3.11.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.2.1
environment=target/interop
"$environment/bin/python" -c "from importlib.metadata import version as v; assert v('aics-tlog') == '$version'; import cryptography" 2>/dev/null && exit
echo "installing aics-tlog into $environment"
rm -rf "$environment"
python3 -m venv "$environment"
pip="$environment/bin/pip --quiet --disable-pip-version-check install"
$pip cryptography
$pip --no-deps --ignore-requires-python "aics-tlog==$version"
