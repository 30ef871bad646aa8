#!/usr/bin/env bash
# Installs ganinv with its development tools into the Python environment given as $1 (a venv folder).
# .ci/run uses it, so that an image built with it installs what CI tests.
set -euo pipefail
venv=$1
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
VIRTUAL_ENV=$venv "$venv/bin/uv" pip install --quiet -e ".[dev]" -c constraints.txt
