# Sourced by quickstart.sh and test.sh: enters the checkout and its virtual environment .venv, made and filled if needed.
# usage: source setup_environment.sh EXTRA   (an extra of setup.py, or nothing)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidate
    # The newest tested one: from 3.12 on, jaxlib has oneDNN's convolutions, with which a CPU trains faster.
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3 python3.14 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer with the venv module was found: install one, or name it with PYTHON=..." >&2
    return 1
}

[ -x .venv/bin/python ] && .venv/bin/python -m pip --version > /dev/null 2>&1 || {
    python=$(find_python)
    rm -rf .venv
    "$python" -m venv .venv
}
extras="${1:-}"
if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
    extras="${extras:+$extras,}cuda12"
fi
# Installed again only when what is asked for has changed.
wanted="$(cksum setup.py) $extras"
stamp=.venv/installed_"${extras//,/_}"
if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
    echo "Installing into $PWD/.venv ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
    echo "$wanted" > "$stamp"
fi
