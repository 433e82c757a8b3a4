#!/usr/bin/env bash
# Makes the roots of the hosts of `make test-hosts`: a minimal Debian with systemd for each release, whose apt has fetched
# already what the packages of dist/ depend on, and what tests install besides (readers of manual pages and completion,
# PostgreSQL, cloud-init). So all of it is installed without network. Existing roots are kept.
# Usage: host-roots.sh DIRECTORY
set -eu
here=$(dirname "$0")
directory=${1:?host-roots.sh: name a directory}
extras="man-db bash-completion zsh fish postgresql cloud-init"
for release in debian12:bookworm debian13:trixie; do
  name=${release%:*}
  root=$directory/$name
  packages=("$here/../dist/$name"/*.deb)
  [ -e "${packages[0]}" ] || { echo "host-roots.sh: no packages in dist/$name; run 'make packages' first" >&2; exit 69; }
  "$here/debian-root.sh" "${release#*:}" "$root" systemd systemd-sysv dbus udev iproute2
  wanted=$( (echo "$extras"; for package in "${packages[@]}"; do dpkg-deb --field "$package" Depends Recommends Pre-Depends; done) |
    sha256sum)
  stamp=$root/.fetched
  if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then continue; fi
  mkdir -p "$root/packages"
  cp "${packages[@]}" "$root/packages/"
  # shellcheck disable=SC2016 # the root expands it
  chroot "$root" sh -c 'apt-get install -qq -y --download-only /packages/*.deb $1' fetch "$extras" </dev/null >"$root.fetch.log" 2>&1 || {
    tail -n 20 "$root.fetch.log" >&2; echo "host-roots.sh: apt could not fetch what the packages need" >&2; exit 70; }
  rm -r "$root/packages"
  echo "$wanted" >"$stamp"
done
