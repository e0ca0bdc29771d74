#!/usr/bin/env bash
# The service under a real systemd, in the test bed of shared/vm: `tests/vm.sh` in namespaces of this host (seconds),
# `tests/vm.sh --vm` in an emulated machine with cgroup v2 and Debian's kernel (minutes). Not part of tests/all.sh:
# the test bed lies beside the repository, not in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bed=${EVENKEEL_VM:-../shared/vm}
[ -x "$bed/run" ] || { echo "there is no test bed at $bed: set EVENKEEL_VM" >&2; exit 1; }
binaries=${EVENKEEL_BINARIES:-${CARGO_TARGET_DIR:-target}/release}
[ -x "$binaries/evenkeel" ] || { cargo build --release --locked --bins; }
case ${1:-} in
    --vm) run=(run --timeout 600) ;;
    '') run=(run-ns --timeout 300) ;;
    *) echo "usage: tests/vm.sh [--vm]" >&2; exit 64 ;;
esac
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$binaries/evenkeel" "$binaries/evenkeel-monitor" examples/systemd/evenkeel.service tests/vm/service/test.sh \
    "$(command -v busybox)" "$payload"
"$bed/${run[0]}" "${run[@]:1}" "$payload"
