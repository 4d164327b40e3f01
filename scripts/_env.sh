# Sourced by the scripts beside it: `ensure_venv NAME` makes .venv hold exactly what the lock NAME says.
#
# Every file is checked by its hash. What is installed is written to a stamp (lock + project file + place), so that
# the next start costs one checksum.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"

die() { printf '%s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed; none was found on PATH (set PYTHON to name one)."
}

# The lock, the project file and the place: a moved tree needs its scripts written anew.
fingerprint() { printf '%s %s' "$ROOT" "$(cat "$ROOT/$1" "$ROOT/pyproject.toml" | cksum)"; }

stamp_of() { printf '%s/.installed-%s' "$VENV" "$1"; }

is_current() { [ -x "$VENV/bin/python" ] && [ "$(cat "$(stamp_of "$1")" 2>/dev/null)" = "$(fingerprint "$1")" ]; }

make_venv() {
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
    local python
    python="$(find_python)" || exit 1
    "$python" -c 'import ensurepip' 2>/dev/null \
        || die "$python cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)."
    "$python" -m venv --clear "$VENV" || die "Could not make a virtual environment in $VENV."
}

# pip's own lines become one counter: redrawn on a terminal, a line for every 20th package elsewhere.
show_progress() {
    local terminal=0
    [ -t 2 ] && terminal=1
    awk -v total="$1" -v terminal="$terminal" '
        /^(Collecting|Processing) / {
            n++
            sub(".*/", "", $2)
            if (terminal) printf "\r\033[K  %d/%d %s", n, total, $2 > "/dev/stderr"
            else if (n % 20 == 0) printf "  %d/%d packages\n", n, total > "/dev/stderr"
        }
        /^Installing collected/ { if (terminal) printf "\r\033[K  writing files" > "/dev/stderr" }
        END { if (terminal) printf "\r\033[K" > "/dev/stderr" }'
}

# uv, at its version in the lock, takes seconds where pip takes a minute. It knows nothing of pip's settings: where an index
# or a proxy stands in those alone, and where there is no uv to be had, pip does it.
install_by_uv() {
    local lock="$1" manner=--quiet
    [ -t 2 ] && manner=--color=auto
    sed -n '/^uv==/,/[^\\]$/p' "$ROOT/requirements-dev.txt" >"$VENV/uv.txt"
    "$VENV/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$VENV/uv.txt" 2>/dev/null \
        && "$VENV/bin/uv" pip install "$manner" --python "$VENV/bin/python" --require-hashes -r "$ROOT/$lock"
}

install_by_pip() {
    local lock="$1" total="$2" log="$VENV/install.log"
    echo "... by pip, which takes a minute ..." >&2
    "$VENV/bin/python" -m pip install --progress-bar off --require-hashes -r "$ROOT/$lock" 2>"$log" \
        | show_progress "$total" || { cat "$log" >&2; die "Installing $lock failed."; }
}

install_lock() {
    local lock="$1" total log="$VENV/install.log"
    total="$(grep -c '^[a-zA-Z0-9].*==' "$ROOT/$lock")"
    echo "Installing $total packages into $VENV (once) ..." >&2
    install_by_uv "$lock" || install_by_pip "$lock" "$total"
    "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$ROOT" 2>"$log" \
        || { cat "$log" >&2; die "Installing the project itself failed."; }
}

ensure_venv() {
    local lock="$1" also
    is_current "$lock" && return
    mkdir -p "$VENV"
    # Two chores at once must not install into one place; where there is no flock they are left to themselves.
    exec 9<"$ROOT/scripts/_env.sh"
    if command -v flock >/dev/null; then flock 9; fi
    if ! is_current "$lock"; then
        make_venv
        install_lock "$lock"
        # Each lock holds all of the runtime's, at the same versions.
        for also in requirements.txt "$lock"; do fingerprint "$also" >"$(stamp_of "$also")"; done
    fi
    exec 9<&-
}
