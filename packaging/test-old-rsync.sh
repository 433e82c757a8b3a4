#!/usr/bin/env bash
# Runs what moves data again with an old rsync: where storages have it, where machines have it, and where both do.
# Each run ends with the versions that ran. That a side ran its own is what test_rsync_of_each_side.py asserts.
# Usage: test-old-rsync.sh PYTHON CACHE-DIRECTORY [PYTEST-ARGUMENT...]
set -eu
python=$1 cache=$2
shift 2
old=$("$(dirname "$0")/old-rsync.sh" "$cache")
# Why there is none has been said.
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
