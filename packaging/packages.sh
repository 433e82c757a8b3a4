#!/usr/bin/env bash
# Builds the Debian packages of each release, in a clean root of that release and without network, and runs lintian there.
# The packages are in dist/debian12 and dist/debian13. Roots and downloads are kept below .cache/packages. Needs root.
# Usage: packages.sh PYTHON [RELEASE...]
set -eu
python=${1:?usage: $0 PYTHON [RELEASE...]}
shift
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "packages.sh: run it as root, because a clean root is made with debootstrap and chroot" >&2; exit 77; }
cache=$PWD/.cache/packages
mkdir -p "$cache"
# Versions of Python of each release, and what is installed in the root to build.
declare -A number=([bookworm]=12 [trixie]=13) python_of=([bookworm]=3.11 [trixie]=3.13)
tools=(debhelper lintian python3 python3-dev gcc libc6-dev libpq-dev)
# The time stamp of all files: two builds of one commit give the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)}
export SOURCE_DATE_EPOCH

# 2.0.0.dev0 becomes 2.0.0~dev0+COMMITS-1, which is older than 2.0.0-1 and newer than the packages of an earlier commit.
upstream=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
debian_version=$(sed -E 's/\.?(dev|rc|a|b)([0-9]+)/~\1\2/' <<<"$upstream")
case $debian_version in *~dev*) debian_version+=+$(git rev-list --count HEAD 2>/dev/null || echo 0) ;; esac

# Downloads the wheels of one part for one release, once for each set of pins. Prints their directory.
wheels() {
  local release=$1 part=$2 requirements directory arguments=() platform
  requirements=$("$python" packaging/builder/pinned.py "$part" "${python_of[$release]}")
  directory=$cache/wheels/$release-$part-$(sha256sum <<<"$requirements" | cut -c -16)
  if [ ! -d "$directory" ]; then
    for platform in 2_34 2_28 2_24 2_17 2_12 2_5; do arguments+=(--platform "manylinux_${platform}_$(uname -m)"); done
    mkdir -p "$cache/wheels"
    rm -rf "$directory.new"
    "$python" -m pip download -qq --require-hashes --no-deps --only-binary :all: --implementation cp \
      --python-version "${python_of[$release]}" "${arguments[@]}" --dest "$directory.new" \
      --requirement /dev/stdin <<<"$requirements" >&2
    mv "$directory.new" "$directory"
  fi
  echo "$directory"
}

# Downloads the source of what is compiled in the root, to use the release's own libraries. Prints its directory.
compiled() {
  local directory
  directory=$cache/wheels/compiled-$(sha256sum <packaging/builder/compiled.txt | cut -c -16)
  if [ ! -d "$directory" ]; then
    mkdir -p "$cache/wheels"
    rm -rf "$directory.new"
    "$python" -m pip download -qq --require-hashes --no-deps --no-build-isolation --no-binary :all: \
      --dest "$directory.new" --requirement packaging/builder/compiled.txt >&2
    mv "$directory.new" "$directory"
  fi
  echo "$directory"
}

# What is in the repository, without what is ignored.
copy_source() {
  if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard -- src packaging docs examples pyproject.toml CHANGELOG.md |
      while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done
  else
    find src packaging docs examples pyproject.toml CHANGELOG.md -type f -not -name '*.pyc' -print0
  fi | tar --create --null --files-from=- | tar --extract --no-same-owner --directory="$1"
}

build() {
  local release=$1 name=debian${number[$1]} started=$SECONDS base=$cache/build-$1 work part directory key
  packaging/debian-root.sh "$release" "$base" "${tools[@]}"
  work=$(mktemp -d "$cache/work-$release.XXXXXX")
  # shellcheck disable=SC2064 # this directory
  trap "rm -rf --one-file-system '$work'" EXIT
  mkdir -p "$work"/{upper,overlay,root} "$work/source/build/wheels" "$work/out"
  copy_source "$work/source"
  mv "$work/source/packaging/debian" "$work/source/debian"
  for part in common api; do
    directory=$(wheels "$release" "$part")
    cp -r "$directory" "$work/source/build/wheels/$part"
  done
  directory=$(compiled)
  cp -r "$directory" "$work/source/build/compiled"
  # Plain Python for any version, which make setup has installed from pins with hashes.
  mkdir "$work/source/build/tools"
  for part in argparse_manpage shtab; do
    cp -r "$("$python" -c "import $part; print($part.__path__[0])")" "$work/source/build/tools/"
  done
  printf 'turku (%s-1~deb%su1) %s; urgency=medium\n\n  * What changed is in CHANGELOG.md.\n\n -- %s  %s\n' \
    "$debian_version" "${number[$release]}" "$release" "$(sed -n 's/^Maintainer: //p' packaging/debian/control)" \
    "$(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" >"$work/source/debian/changelog"
  # What the packages are made of. If it is what the last build was made of, they are there already.
  key=$( (cat "$base/.complete"; cd "$work/source"; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum)
  if [ "$(cat "dist/$name/.made-of" 2>/dev/null)" = "$key" ]; then
    rm -rf --one-file-system "$work"
    trap - EXIT
    echo "$name: the packages are those of this source already"
    return
  fi
  # Namespaces of its own: nothing stays mounted, and nothing reaches the network.
  unshare --mount --net --pid --ipc --fork bash -eu -c '
    base=$1 work=$2
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" "$work/root" 2>/dev/null ||
      cp -a --reflink=auto "$base/." "$work/root"
    mount -t proc proc "$work/root/proc"
    mount -t tmpfs tmpfs "$work/root/tmp"
    mkdir -p "$work/root/build/turku"
    mount --bind "$work/source" "$work/root/build/turku"
    chroot "$work/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
      SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" bash -eu -c "
        cd /build/turku && dpkg-buildpackage --build=binary --unsigned-changes --no-check-builddeps >/build/log 2>&1 ||
          { tail -n 40 /build/log; exit 1; }
        lintian --fail-on=error --allow-root --tag-display-limit 20 /build/*.changes"
    cp "$work"/root/build/*.deb "$work/out/"
  ' build "$base" "$work"
  echo "$key" >"$work/out/.made-of"
  rm -rf "dist/$name"
  mkdir -p dist
  mv "$work/out" "dist/$name"
  rm -rf --one-file-system "$work"
  trap - EXIT
  echo "$name: $(cd "dist/$name" && du -h --apparent-size -- *.deb | awk '{ printf "%s%s %s", separator, $2, $1; separator = ", " }')," \
    "$((SECONDS - started)) s"
}

[ $# -gt 0 ] || set -- bookworm trixie
for release; do build "$release"; done
