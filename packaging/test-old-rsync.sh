#!/usr/bin/env bash
# Runs the tests that move data with an old rsync: on storages, on machines, and on both. Marks choose the tests:
# "both_rsyncs" for all three runs, "storage_rsync" for the first. The storage's rsync is the one whose options are ours and
# whose output we read.
# Each run ends with the versions that ran. test_rsync_of_each_side.py checks that each side ran its own.
# Usage: test-old-rsync.sh PYTHON CACHE-DIRECTORY [PYTEST-ARGUMENT...]
set -eu
python=$1 cache=$2
shift 2
old=$("$(dirname "$0")/old-rsync.sh" "$cache")
# old-rsync.sh has said why there is none.
[ -n "$old" ] || exit 0

# Only files with a mark are collected, which takes a minute less. In a folder of conformance tests the conftest sets them.
if [ $# = 0 ]; then
  mapfile -t files < <(grep -rlE 'mark\.(storage|both)_rsync' tests --include='test_*.py')
  set -- "${files[@]}" tests/conformance/snapshots
fi

failed=
run() {
  local title=$1
  shift
  echo "== $title"
  "$python" -m pytest -n 2 --dist loadgroup -q "$@" || failed="$failed; $title"
}
run "old on storages" --storage-rsync="$old" -m "both_rsyncs or storage_rsync" "$@"
run "old on machines" --machine-rsync="$old" -m both_rsyncs "$@"
run "old on both" --storage-rsync="$old" --machine-rsync="$old" -m both_rsyncs "$@"
[ -z "$failed" ] || { echo "failed with rsync $("$old" --version | sed -n '1s/^rsync  *version \([^ ]*\).*/\1/p'): ${failed#; }" >&2; exit 1; }
