#!/usr/bin/env bash
# Prints the path of a Python of the given version: from PATH, pyenv or uv, whichever has it.
# Usage: find-python.sh 3.13
set -eu
version=${1:?usage: $0 VERSION}

works() { [ -n "$1" ] && "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

for python in "$(command -v "python$version" || true)" \
              "$(ls "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python"$version" 2>/dev/null | tail -n 1)" \
              "$(uv python find --no-python-downloads "$version" 2>/dev/null || true)"; do
  if works "$python"; then
    echo "$python"
    exit 0
  fi
done
echo "no Python $version found. Install it with 'uv python install $version' (pip install uv) or 'pyenv install $version'." >&2
echo "Debian 12 has Python 3.11 and Debian 13 has Python 3.13: apt install python3 python3-venv" >&2
exit 69
