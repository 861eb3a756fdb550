#!/usr/bin/env bash
# The Python packages aics-tlog and aics-witness, which the interoperability tests ask, in target/interop. They want
# Python 3.12 in name only: their code runs on Debian's 3.11.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(aics-tlog==0.2.1 aics-witness==0.1.0)
environment=target/interop
"$environment/bin/python" - "${packages[@]}" 2>/dev/null <<'PYTHON' && exit
import sys
from importlib.metadata import version
import cryptography
for package in sys.argv[1:]:
    name, wanted = package.split("==")
    assert version(name) == wanted
PYTHON
echo "installing ${packages[*]} into $environment"
rm -rf "$environment"
python3 -m venv "$environment"
pip="$environment/bin/pip --quiet --disable-pip-version-check install"
$pip cryptography
$pip --no-deps --ignore-requires-python "${packages[@]}"
