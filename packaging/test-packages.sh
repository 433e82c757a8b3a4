#!/usr/bin/env bash
# Installs the packages of a release in a clean root of it without network, runs every program, looks at manual pages,
# completion, users and directories, then upgrades, removes and purges. Needs root, and packages that `make packages` made.
# Usage: test-packages.sh [RELEASE...]
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/packages
mkdir -p "$cache"
declare -A number=([bookworm]=12 [trixie]=13)
# What the packages depend on, and what reads manual pages and completion. Nothing is downloaded afterwards.
dependencies=(rsync openssh-client openssh-server sudo bubblewrap ca-certificates openssl tzdata systemd python3 libpq5
              man-db bash-completion zsh fish)

try() {
  local release=$1 base=$cache/install-$1 packages=$PWD/dist/debian${number[$1]} work
  packaging/debian-root.sh "$release" "$base" "${dependencies[@]}"
  work=$(mktemp -d "$cache/try-$release.XXXXXX")
  # shellcheck disable=SC2064 # this directory
  trap "rm -rf --one-file-system '$work'" EXIT
  mkdir -p "$work"/{upper,overlay,root}
  unshare --mount --net --pid --ipc --fork bash -eu -c '
    base=$1 work=$2 packages=$3 script=$4
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" "$work/root" 2>/dev/null ||
      cp -a --reflink=auto "$base/." "$work/root"
    mount -t proc proc "$work/root/proc"
    mount --rbind /dev "$work/root/dev"
    mount -t tmpfs tmpfs "$work/root/tmp"
    mkdir "$work/root/packages"
    cp "$packages"/*.deb "$work/root/packages/"
    cp "$script" "$work/root/tmp/installed-packages.sh"
    chroot "$work/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
      bash /tmp/installed-packages.sh
  ' try "$base" "$work" "$packages" packaging/installed-packages.sh
  rm -rf --one-file-system "$work"
  trap - EXIT
  echo "debian${number[$release]}: installed, upgraded, removed and purged"
}

[ $# -gt 0 ] || set -- bookworm trixie
for release; do try "$release"; done
