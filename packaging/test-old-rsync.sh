#!/usr/bin/env bash
# Runs the tests that move data with an old rsync: on storages, on machines, and on both.
# Each run ends with the versions that ran. test_rsync_of_each_side.py checks that each side ran its own.
# Usage: test-old-rsync.sh PYTHON CACHE-DIRECTORY [PYTEST-ARGUMENT...]
set -eu
python=$1 cache=$2
shift 2
old=$("$(dirname "$0")/old-rsync.sh" "$cache")
# old-rsync.sh has said why there is none.
[ -n "$old" ] || exit 0

storage=tests/integration/storage
everywhere=({$storage,tests/system}/test_rsync_of_each_side.py
            tests/conformance/snapshots/test_{every_mode,what_differs}.py
            $storage/test_backups.py tests/system/test_recovery.py)
# The storage's rsync is the one whose options are ours and whose output we read. Of its tests, those that start one.
receiving=(tests/conformance/snapshots
           $storage/test_{bandwidth_windows,catalog,drill,heartbeat,looking_command,parallel_sources,proof_commands}.py
           $storage/test_{prune_command,sandbox,session,source_comparison,verification}.py
           tests/attacks/test_{m3_filters,m9_lying_between_runs,m9_malicious_rsync_server,m10_ransomware}.py)

failed=
run() {
  local title=$1
  shift
  echo "== $title"
  "$python" -m pytest -n 2 --dist loadgroup -q "$@" || failed="$failed; $title"
}
run "old on storages" --storage-rsync="$old" "${everywhere[@]}" "${receiving[@]}" "$@"
run "old on machines" --machine-rsync="$old" "${everywhere[@]}" "$@"
run "old on both" --storage-rsync="$old" --machine-rsync="$old" "${everywhere[@]}" "$@"
[ -z "$failed" ] || { echo "failed with rsync $("$old" --version | sed -n '1s/^rsync  *version \([^ ]*\).*/\1/p'): ${failed#; }" >&2; exit 1; }
