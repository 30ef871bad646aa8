#!/usr/bin/env bash
# Installs ganinv into the Python environment given as $1 (a venv folder), with the optional packages
# given as $2 (default: dev,demo, all that the tests need). .ci/run and the Dockerfile both use it, so
# that an image holds the versions that CI tests. Compiled once: a process then imports in half the time.
# Gradio asks for pillow<13 although it works with 13, which is what the tests run with: hence the
# override, and hence demo stands outside dev, which pip must be able to install with these versions.
set -euo pipefail
venv=$1
extras=${2:-dev,demo}
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
VIRTUAL_ENV=$venv "$venv/bin/uv" pip install --quiet --compile-bytecode -e ".[$extras]" \
    -c constraints.txt --override <(echo "pillow>=10")
