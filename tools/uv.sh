#!/bin/sh
# Print the path of a uv that works: the one on PATH, else one that this script brings into .tools of the checkout.
# Needs Python 3.10 or newer; writes nothing outside the checkout and nothing to standard output but the path.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
own=$root/.tools/uv

# A version manager's shim is on PATH even where no uv stands behind it, so ask.
if uv --version >/dev/null 2>&1; then
    command -v uv
    exit 0
fi
if [ -x "$own" ]; then
    echo "$own"
    exit 0
fi

for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        found=$python
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "Python 3.10 or newer is needed; there is none on PATH" >&2
    exit 1
fi

echo "no uv on PATH: bringing one into .tools" >&2
mkdir -p "$root/.tools"
# A folder of our own and a rename at the end: two of us may run at once.
work=$(mktemp -d "$root/.tools/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
if ! "$found" -m venv "$work/venv" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "$found cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
fi
if ! "$work/venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check 'uv>=0.9,<1' >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "uv could not be installed from the package index; see above" >&2
    exit 1
fi
mv -f "$work/venv/bin/uv" "$own"
echo "$own"
