#!/usr/bin/env bash
# Installs ganinv into the Python environment given as $1 (a venv folder), with the optional packages
# given as $2 (default: dev, all that the tests need). .ci/run and the Dockerfile both use it, so that
# an image holds the versions that CI tests. Compiled once: a process then imports in half the time.
set -euo pipefail
venv=$1
extras=${2:-dev}
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
VIRTUAL_ENV=$venv "$venv/bin/uv" pip install --quiet --compile-bytecode -e ".[$extras]" -c constraints.txt
