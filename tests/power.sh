#!/usr/bin/env bash
# Power cuts over an apply: a project is applied, changed and partly removed on a disk whose every write is logged, and
# then looked at on the disks that a power cut at many moments would have left.
#
#   tests/power.sh [POINTS]      100 cuts by default, some seconds each
#
# Not part of tests/all.sh: the test bed (shared/vm, its image built once by its build-image) lies beside the repository.
# EVENKEEL_VM names it, EVENKEEL_VM_CACHE its cache, EVENKEEL_BINARIES the directory of the two binaries. That the check
# can fail is seen with EVENKEEL_POWER=unsynced: then no fsync, fdatasync or syncfs of the writer is carried out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
points=${1:-100}
bed=${EVENKEEL_VM:-../shared/vm}
[ -x "$bed/logged-disk" ] || { echo "there is no test bed at $bed: set EVENKEEL_VM" >&2; exit 1; }
bed=$(cd "$bed" && pwd)
[ -f "${EVENKEEL_VM_CACHE:-$bed/.cache}/stamp" ] || { echo "its image is not built: run $bed/build-image" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "containers and loop devices need root" >&2; exit 1; }
binaries=${EVENKEEL_BINARIES:-${CARGO_TARGET_DIR:-target}/debug}
[ -x "$binaries/evenkeel" ] || cargo build --locked --bins
binaries=$(cd "$binaries" && pwd)

work=$(mktemp -d "${TMPDIR:-/tmp}/evenkeel-power.XXXXXX")
export EVENKEEL_POWER_WORK=$work EVENKEEL_POWER_BINARY=$binaries/evenkeel
# A run directory is gone after a reboot, so it is not on the disk; and the state root is where it is in the checks.
export EVENKEEL_ROOT=$work/disk/mnt/root EVENKEEL_RUN=$work/run
end() {
    status=$?
    [ ! -d "$EVENKEEL_ROOT" ] || "$binaries/evenkeel" down --project power --volumes --yes >/dev/null || status=1
    [ ! -e "$work/disk/pid" ] || "$bed/logged-disk" stop "$work/disk"
    rm -rf "$work"
    exit "$status"
}
trap end EXIT

mkdir -p "$work/project/rootfs"/{bin,data,etc,tmp} "$work/run" "$work/disk"
cp "$(command -v busybox)" "$work/project/rootfs/bin/"
for applet in sh sleep sync; do ln -s busybox "$work/project/rootfs/bin/$applet"; done
for number in $(seq 40); do head -c $((number * 700)) /dev/urandom >"$work/project/rootfs/data/$number"; done
# The same tree as an archive of one layer, with another file on top.
cp -a "$work/project/rootfs" "$work/tree"
echo "of the archive" >"$work/tree/etc/archive"
tar -C "$work/tree" -cf "$work/project/tree.tar" .
cat >"$work/project/1.toml" <<TOML
project = "power"
[images.tree]
rootfs = "rootfs"
[volumes.data]
[containers.first]
image = "tree"
command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
network_mode = "none"
mounts = { "/data" = "data" }
TOML
{
    cat "$work/project/1.toml"
    cat <<TOML
[images.packed]
rootfs = "tree.tar"
[containers.second]
image = "packed"
command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
network_mode = "none"
TOML
} >"$work/project/2.toml"
sed 's/network_mode = "none"/&\nenvironment = { CHANGED = "yes" }/' "$work/project/2.toml" >"$work/project/3.toml"

"$bed/logged-disk" start "$work/disk" 384
evenkeel=("$binaries/evenkeel")
if [ "${EVENKEEL_POWER:-}" = unsynced ]; then
    evenkeel=(strace -DD -f -qq -o /dev/null -e trace=fsync,fdatasync,syncfs,sync_file_range
        -e inject=fsync,fdatasync,syncfs,sync_file_range:retval=0 "$binaries/evenkeel")
fi
# `N E`: from entry E of the log on, the state N has been said to be so. Between an apply and what comes next somebody
# else writes, so that cuts fall there too.
said() {
    echo "$1 $("$bed/crashpoints" now "$work/disk/writes.log")" >>"$work/said"
    for _ in $(seq 8); do dd if=/dev/zero of="$work/disk/mnt/other" bs=4k count=4 conv=fsync status=none; done
}
for number in 1 2 3; do
    "${evenkeel[@]}" apply -f "$work/project/$number.toml" >/dev/null
    said "applied-$number"
done
said leaving
"${evenkeel[@]}" down -f "$work/project/1.toml" --yes >/dev/null
said down
"$bed/logged-disk" stop "$work/disk"
"$bed/crashpoints" list "$work/disk/writes.log"
"$bed/crashpoints" each "$work/disk/writes.log" "$work/disk/before.img" --points "$points" ${EVENKEEL_POWER_MODE:+--mode "$EVENKEEL_POWER_MODE"} \
    -- "$top/tests/power/check"
