#!/usr/bin/env bash
# Installs the Debian packages that a Makefile target needs: as root through apt, else it names what is missing.
# Usage: require-debian-packages.sh demo|test|bench
set -eu
case "${1:-}" in
  demo) packages=(rsync openssh-server openssh-client python3-venv ca-certificates) ;;
  test) packages=(rsync openssh-server openssh-client python3-venv ca-certificates postgresql chromium
                  bubblewrap btrfs-progs xfsprogs attr acl procps iproute2 sudo) ;;
  # The peers that are measured beside us, and the load generator.
  bench) packages=(rsync openssh-server openssh-client python3-venv ca-certificates postgresql wrk
                   bubblewrap btrfs-progs xfsprogs e2fsprogs util-linux procps restic borgbackup rsnapshot) ;;
  *) echo "usage: $0 demo|test|bench" >&2; exit 64 ;;
esac
command -v dpkg-query >/dev/null || {
  echo "not a Debian system: install what gives you the programs of ${packages[*]}" >&2; exit 0; }
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "missing Debian packages; as root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 69
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The packages' services stay down: Turku's demo and tests start their own.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=1
fi
trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}
