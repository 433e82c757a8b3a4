#!/usr/bin/env bash
# Builds the packages of the last release for Debian 12, which an upgrade begins with. They are in DIRECTORY/dist/debian12 and
# are built once. Without the history of the repository there are none.
# Usage: previous-packages.sh PYTHON DIRECTORY
set -eu
python=$(realpath -s "${1:?usage: $0 PYTHON DIRECTORY}") directory=${2:?usage: $0 PYTHON DIRECTORY}
cd "$(dirname "$0")/.."
commit=$(sed -n 's/^COMMIT: Final = "\(.*\)"$/\1/p' tests/hosts/previous_release.py)
[ "$(cat "$directory/.built" 2>/dev/null)" != "$commit" ] || exit 0
git cat-file -e "$commit^{commit}" 2>/dev/null || {
  echo "previous-packages.sh: this clone lacks the history with $commit: no upgrade from it is tested" >&2; exit 0; }
rm -rf --one-file-system "$directory"
mkdir -p "$directory/.cache"
git archive "$commit" | tar --extract --directory="$directory"
# The roots and downloads of the present packages serve these as well.
mkdir -p .cache/packages
ln -s "$PWD/.cache/packages" "$directory/.cache/packages"
# It is no part of this repository: its version is the oldest.
(cd "$directory" && GIT_DIR=/nonexistent packaging/packages.sh "$python" bookworm)
echo "$commit" >"$directory/.built"
