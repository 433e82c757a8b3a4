#!/usr/bin/env bash
# Prints the path of an rsync 3.2.7, Debian 12's first one, unpacked beside the system's. Tests also run with it, as machines and
# storages that are not up to date do. If the distribution does not offer it, the script says why, prints no path, and exits with 0.
# Usage: old-rsync.sh DIRECTORY
set -eu
release=3.2.7
directory=${1:?usage: old-rsync.sh DIRECTORY}/rsync-$release
program=$directory/usr/bin/rsync
if [ ! -x "$program" ]; then
  command -v apt-cache >/dev/null || { echo "rsync $release is not tried: this is no Debian, which would offer it" >&2; exit 0; }
  # The newest package of that release.
  offered() { apt-cache madison rsync 2>/dev/null | awk -F' *[|] *' -v begin="$release-" 'index($2, begin) == 1 { print $2; exit }'; }
  version=$(offered)
  if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    version=$(offered)
  fi
  if [ -z "$version" ]; then
    echo "rsync $release is not tried: $(. /etc/os-release && echo "$PRETTY_NAME") does not offer it" >&2
    exit 0
  fi
  # Whole or not at all: what is interrupted here leaves no program behind.
  mkdir -p "${directory%/*}"
  unpacked=$(mktemp -d "$directory.XXXXXX")
  trap 'rm -rf "$unpacked"' EXIT
  # As root apt would hand it to a user of its own, who may not write here.
  (cd "$unpacked" && apt-get download -qq -o APT::Sandbox::User=root "rsync=$version" >&2 && dpkg -x rsync_*.deb . && rm rsync_*.deb)
  chmod 755 "$unpacked"
  rm -rf "$directory"
  mv "$unpacked" "$directory"
fi
case $("$program" --version | head -n 1) in
  "rsync  version $release "*) ;;
  *) echo "$program does not say that it is rsync $release" >&2; exit 1 ;;
esac
echo "$program"
