#!/usr/bin/env bash
# Makes a clean root directory of a Debian release: a minimal system with the release's updates, and apt set up as on this
# computer. An existing root is kept. Needs root and debootstrap.
# Usage: debian-root.sh bookworm|trixie DIRECTORY [PACKAGE...]
set -eu
release=${1:?debian-root.sh: name a release}
root=${2:?debian-root.sh: name a directory}
shift 2
packages=$*
stamp=$root/.complete
wanted="$release $packages"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi
rm -rf --one-file-system "$root"
mkdir -p "$root"

# The archives that this computer uses, with the other release's name: main, its updates, its security updates.
archives=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
  grep -E ' (bookworm|trixie)(-updates|-security)?$' | sed -E "s/ (bookworm|trixie)/ $release/" | sort -u)
mirror=$(sed -n "s/ $release\$//p" <<<"$archives" | head -n 1)
[ -n "$mirror" ] || { echo "debian-root.sh: apt on this computer knows no archive of Debian" >&2; exit 69; }
debootstrap --variant=minbase "$release" "$root" "$mirror" >"$root.log" 2>&1 || {
  tail -n 20 "$root.log" >&2; echo "debian-root.sh: debootstrap failed, see $root.log" >&2; exit 70; }
sed 's/^\([^ ]*\) \(.*\)$/deb \1 \2 main/' <<<"$archives" >"$root/etc/apt/sources.list"
cat >"$root/etc/apt/apt.conf.d/90turku-root" <<'EOF'
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Languages "none";
EOF
for file in /etc/apt/apt.conf.d/*; do
  # Whatever this computer needs to reach its archives, such as a proxy or dates that have passed.
  if grep -q '^Acquire::' "$file"; then cp "$file" "$root/etc/apt/apt.conf.d/"; fi
done
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
{
  chroot "$root" apt-get update -qq
  chroot "$root" apt-get dist-upgrade -qq -y
  # shellcheck disable=SC2086 # a list of packages
  [ -z "$packages" ] || chroot "$root" apt-get install -qq -y $packages
  chroot "$root" apt-get clean
} </dev/null >>"$root.log" 2>&1 || {
  tail -n 20 "$root.log" >&2; echo "debian-root.sh: apt failed in $root, see $root.log" >&2; exit 70; }
rm -f "$root/usr/sbin/policy-rc.d"
echo "$wanted" >"$stamp"
