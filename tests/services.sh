#!/usr/bin/env bash
# Installs and starts what tests need beside Python, on Debian and Ubuntu. One function for each, and all of them, or
# those named as arguments: `tests/services.sh chromium`. Running it again changes nothing.
#
# A new server is a function need_… here, a word in ALL, and a fixture in tests/conftest.py that skips, or fails with CI=true,
# where the server is missing.
set -euo pipefail

ALL=(python chromium)

say() { printf 'services: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "needs root or sudo for: $*" >&2
        return 1
    fi
}

updated=''
# Debian packages, each only where it is missing, after one update of the package lists.
debian() {
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here; install these yourself: ${missing[*]}" >&2
        return 1
    fi
    say "installing ${missing[*]}"
    if [ -z "$updated" ]; then
        as_root apt-get update -qq
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The browser of the page tests; any Chromium or Chrome in the path will do.
need_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if type -P "$name" >/dev/null; then
            say "chromium is $(type -P "$name")"
            return 0
        fi
    done
    debian chromium fonts-dejavu-core
    say "chromium is $(type -P chromium)"
}

# Virtual environments: Debian ships Python without them.
need_python() {
    if python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "python3 can make virtual environments"
        return 0
    fi
    debian python3 python3-venv
}

[ "$#" -gt 0 ] || set -- "${ALL[@]}"
for service in "$@"; do
    case " ${ALL[*]} " in
        *" $service "*) "need_$service" ;;
        *)
            say "no service is called $service; there are: ${ALL[*]}" >&2
            exit 2
            ;;
    esac
done
