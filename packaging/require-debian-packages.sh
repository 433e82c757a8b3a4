#!/usr/bin/env bash
# Installs the Debian packages that a Makefile target needs, and the newest rsync that the distribution offers, with apt.
# If it does not run as root, it names what is missing. At the end it prints the installed versions of rsync and ssh.
# Usage: require-debian-packages.sh demo|test|bench|packages
set -eu
case "${1:-}" in
  demo) packages=(rsync openssh-server openssh-client python3-venv ca-certificates) ;;
  # The driver of the browser brings a program that needs libatomic1.
  test) packages=(rsync openssh-server openssh-client python3-venv ca-certificates postgresql chromium libatomic1
                  bubblewrap btrfs-progs xfsprogs e2fsprogs mount attr acl procps iproute2 sudo strace
                  debootstrap systemd-container) ;;
  # The peers that are measured beside us, and the load generator.
  bench) packages=(rsync openssh-server openssh-client python3-venv ca-certificates postgresql wrk
                   bubblewrap btrfs-progs xfsprogs e2fsprogs util-linux procps restic borgbackup rsnapshot) ;;
  # The rest of what builds a package is in the clean root of each release.
  packages) packages=(rsync python3-venv ca-certificates debootstrap util-linux) ;;
  *) echo "usage: $0 demo|test|bench|packages" >&2; exit 64 ;;
esac
needed_rsync=3.5.0  # turku.storage.rsync.version.MINIMUM; a test compares them

say_versions() {
  local rsync ssh
  rsync=$(rsync --version 2>/dev/null | sed -n '1s/^rsync  *version v\{0,1\}\([^ ]*\).*/\1/p' || true)
  # It says its version as an error.
  ssh=$(ssh -V 2>&1 | sed 's/,.*//' || true)
  echo "rsync ${rsync:-of an unknown version} ($(command -v rsync || echo 'not found')), ${ssh:-no ssh}"
}

command -v dpkg-query >/dev/null || {
  echo "not a Debian system: install what gives you the programs of ${packages[*]}" >&2; say_versions; exit 0; }

installed() { dpkg-query --show --showformat='${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p' || true; }
offered() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep --invert-match '(none)' || true; }
# True if the first version is older than the second one. No version is older than any.
older() { dpkg --compare-versions "$1" lt "$2"; }

missing=()
for package in "${packages[@]}"; do
  [ -n "$(installed "$package")" ] || missing+=("$package")
done
rsync=$(installed rsync)
if [ "$(id -u)" != 0 ]; then
  # Only root can have the list of what is offered renewed, so a newer one may be there although none is named.
  [ -z "$rsync" ] || ! older "$rsync" "$needed_rsync" || missing+=(rsync)
else
  candidate=$(offered rsync)
  if older "$rsync" "$needed_rsync" && older "$candidate" "$needed_rsync"; then
    apt-get update -qq
    candidate=$(offered rsync)
  fi
  [ -z "$rsync" ] || ! older "$rsync" "$candidate" || missing+=(rsync)
  if older "$rsync" "$needed_rsync" && older "$candidate" "$needed_rsync"; then
    echo "this distribution offers rsync ${candidate:-no version}: a storage refuses one older than $needed_rsync" >&2
  fi
fi
[ ${#missing[@]} -gt 0 ] || { say_versions; exit 0; }
if [ "$(id -u)" != 0 ]; then
  echo "missing Debian packages; as root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 69
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The packages' services are not started, because Turku's demo and tests start their own.
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
say_versions
