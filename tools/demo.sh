#!/bin/sh
# From an empty checkout to the tour's page in .demo/: what is missing is brought into the checkout, nothing elsewhere.
set -eu
cd -- "$(dirname -- "$0")/.."
uv=$(sh tools/uv.sh)
export UV_CACHE_DIR="${UV_CACHE_DIR:-$PWD/.cache/uv}" UV_PYTHON_DOWNLOADS=never
# uv keeps a lock file among the temporary files, and leaves it there.
mkdir -p .cache/tmp
# What the tour needs and no more; what a developer has brought into .venv besides stays there.
TMPDIR="$PWD/.cache/tmp" "$uv" sync --frozen --inexact --quiet --no-default-groups --package celery-toolkit-showcase-presets --extra all
exec .venv/bin/celery-showcase tour --no-input --output .demo "$@"
