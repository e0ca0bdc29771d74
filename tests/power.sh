#!/usr/bin/env bash
# Power cuts: something is done on a disk whose every write is logged, and then looked at on the disks that a power cut at
# many moments would have left.
#
#   tests/power.sh [POINTS [WHAT]]      100 cuts by default, some seconds each
#
# WHAT is `apply` (a project is applied, changed and partly removed) or `pull` (images come from a registry).
#
# Not part of tests/all.sh: the test bed (shared/vm, its image built once by its build-image) lies beside the repository.
# EVENKEEL_VM names it, EVENKEEL_VM_CACHE its cache, EVENKEEL_BINARIES the directory of the two binaries. That the check
# can fail is seen with EVENKEEL_POWER=unsynced: then no fsync, fdatasync or syncfs of the writer is carried out.
set -euo pipefail
# In a mount namespace of its own: others that are made while the disks are mounted here would have copies of these mounts,
# and a disk that is still mounted somewhere is not the next one.
[ -n "${EVENKEEL_POWER_ALONE:-}" ] || EVENKEEL_POWER_ALONE=1 exec unshare --mount --propagation private "$0" "$@"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
points=${1:-100} what=${2:-apply}
[ -f "tests/power/$what.sh" ] || { echo "there is no tests/power/$what.sh" >&2; exit 1; }
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
    finish || status=1
    [ ! -e "$work/disk/pid" ] || "$bed/logged-disk" stop "$work/disk"
    rm -rf "$work"
    exit "$status"
}
# Defines `prepare`, `writes` and `finish`; `tests/power/$what.check` looks.
source "tests/power/$what.sh"
trap end EXIT

mkdir -p "$work/run" "$work/disk"
prepare
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
writes
"$bed/logged-disk" stop "$work/disk"
"$bed/crashpoints" list "$work/disk/writes.log"
"$bed/crashpoints" each "$work/disk/writes.log" "$work/disk/before.img" --points "$points" ${EVENKEEL_POWER_MODE:+--mode "$EVENKEEL_POWER_MODE"} \
    -- "$top/tests/power/$what.check"
