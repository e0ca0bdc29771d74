#!/usr/bin/env bash
# From a fresh Debian machine to a web page that a container serves because a manifest says so. Run it as root, from
# anywhere; run it again as often as you like.
#
# It installs Debian packages, builds the release binaries into target/, and keeps everything else in one directory:
# .quickstart/ beside the sources, or $EVENKEEL_QUICKSTART. No registry, no internet beyond packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "containers, networks and mounts need root: sudo $0"
export PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || die "there is no cargo: install Rust first, see https://rustup.rs"

say "Debian packages"
packages=(busybox-static curl ca-certificates gcc libc6-dev)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
echo "there: ${packages[*]}"

say "evenkeel itself"
cargo build --release --locked --bins
evenkeel=${CARGO_TARGET_DIR:-target}/release/evenkeel
"$evenkeel" version

here=$(realpath -m "${EVENKEEL_QUICKSTART:-.quickstart}")
mkdir -p "$here"
export EVENKEEL_ROOT=$here/root EVENKEEL_RUN=$here/run EVENKEEL_QUICKSTART_ROOTFS=$here/rootfs

say "a root filesystem from busybox, 2 MB"
if [ ! -e "$here/rootfs/bin/sh" ]; then
    # Made aside and renamed, so that an interrupted run leaves nothing half-made.
    rm -rf "$here/rootfs.new"
    mkdir -p "$here/rootfs.new"/{bin,dev,etc,proc,root,sys,tmp,var,www}
    chmod 1777 "$here/rootfs.new/tmp"
    cp "$(command -v busybox)" "$here/rootfs.new/bin/busybox"
    chroot "$here/rootfs.new" /bin/busybox --install -s /bin
    echo 'root:x:0:0:root:/root:/bin/sh' >"$here/rootfs.new/etc/passwd"
    echo 'root:x:0:' >"$here/rootfs.new/etc/group"
    mv "$here/rootfs.new" "$here/rootfs"
fi
du -sh "$here/rootfs"

manifest=examples/quickstart/evenkeel.toml
say "evenkeel plan -f $manifest"
"$evenkeel" plan -f "$manifest"

say "evenkeel apply -f $manifest --wait"
"$evenkeel" apply -f "$manifest" --wait --timeout 60s

say "evenkeel ps"
"$evenkeel" ps

address=http://127.0.0.1:8088/
say "curl $address"
curl --silent --show-error --fail --noproxy '*' --max-time 10 "$address"

say "evenkeel plan, once more: nothing to do"
"$evenkeel" plan --detailed-exitcode -f "$manifest"

cat <<EOT

It runs. To go on, as root:

  cd $PWD
  export EVENKEEL_ROOT=$EVENKEEL_ROOT EVENKEEL_RUN=$EVENKEEL_RUN
  export EVENKEEL_QUICKSTART_ROOTFS=$EVENKEEL_QUICKSTART_ROOTFS
  alias evenkeel='$(realpath "$evenkeel") --file $manifest'

  evenkeel ps                   # what runs
  evenkeel logs                 # what it wrote
  evenkeel exec -it web sh      # inside
  evenkeel watch                # keep it so, whatever breaks; Ctrl-C ends watching, not the containers

Change something in $manifest, then

  evenkeel plan                 # what that would do, field by field
  evenkeel apply                # do it

To take it down, its volume too:

  evenkeel down --volumes --yes && rm -rf $here
EOT
