#!/usr/bin/env bash
# The service under a real systemd, in the test bed of shared/vm:
#
#   tests/vm.sh [NAME..]        in namespaces of this host (its kernel and cgroups): seconds a payload
#   tests/vm.sh --vm [NAME..]   in an emulated machine with cgroup v2 and Debian's kernel: minutes a payload
#
# A payload is tests/vm/NAME/test.sh; without names all of them run that can. One line a check, and last the sum.
# Not part of tests/all.sh: the test bed lies beside the repository, not in it. EVENKEEL_VM says where (../shared/vm).
# EVENKEEL_BINARIES is a directory with the three programs; without it they are built for release.
# EVENKEEL_VM_TESTS names the test programs of the payload `host`; without it all that need neither cargo nor a registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bed=${EVENKEEL_VM:-../shared/vm}
[ -x "$bed/run" ] || { echo "there is no test bed at \`$bed\`: set EVENKEEL_VM to the directory with run and run-ns" >&2; exit 1; }

machine=namespaces
[ "${1:-}" != --vm ] || { machine=vm; shift; }
case ${1:-} in -*) echo "usage: tests/vm.sh [--vm] [NAME..]" >&2; exit 64 ;; esac
# In namespaces there are the cgroups of the host, and its kernel has run the host tests already.
everything=(service upgrade reboot)
[ "$machine" = namespaces ] || everything+=(cgroups delegation host)
[ $# -gt 0 ] || set -- "${everything[@]}"
for name in "$@"; do
    [ -e "tests/vm/$name/test.sh" ] || { echo "there is no payload \`$name\`: $(cd tests/vm && echo */)" >&2; exit 64; }
    [[ " ${everything[*]} " = *" $name "* ]] || { echo "\`$name\` needs --vm" >&2; exit 64; }
done

# Servers, clients and the compiler that host tests run beside containers; the bed makes its image with them.
export EVENKEEL_VM_EXTRA="dnsmasq-base bind9-dnsutils gcc libc6-dev${EVENKEEL_VM_EXTRA:+ $EVENKEEL_VM_EXTRA}"
# Nothing is done where the image has them.
[ "$machine" = namespaces ] || "$bed/build-image" --quiet

binaries=${EVENKEEL_BINARIES:-${CARGO_TARGET_DIR:-target}/release}
[ -x "$binaries/evenkeel" ] || cargo build --release --locked --bins
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=$work/common
mkdir "$common"
for program in evenkeel evenkeel-monitor evenkeel-runtime; do strip -o "$common/$program" "$binaries/$program"; done
cp examples/systemd/evenkeel.service tests/vm/checks.sh "$(command -v busybox)" "$common"

# The same programs under another version: what an upgrade brings.
upgraded() {
    local version other program
    version=$("$common/evenkeel" version | sed 's/^evenkeel //')
    # As long as the first, so that no byte of the program moves.
    other=${version%?}$(((${version: -1} + 1) % 10))
    mkdir "$1"
    for program in evenkeel evenkeel-monitor; do
        LC_ALL=C sed "s/${version//./\\.}/$other/g" "$common/$program" >"$1/$program"
        chmod 755 "$1/$program"
        ! cmp -s "$common/$program" "$1/$program" || echo "$other" >>"$1/$program"
    done
}

# The test programs that need neither cargo nor a registry, and where they look for the others.
host_tests() {
    local program name wanted=()
    for name in ${EVENKEEL_VM_TESTS:-host_runtime host_namespaces host_resources host_seccomp host_monitor host_engine host_network host_oci host_attacks host_manifest}; do
        wanted+=(--test "$name")
    done
    mkdir "$1/tests"
    cargo test --no-run --locked --message-format json "${wanted[@]}" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/deps/host_' | sort -u >"$work/tests"
    while read -r program; do strip -o "$1/tests/$(basename "${program%-*}")" "$program"; done <"$work/tests"
    program=$(dirname "$(dirname "$(head -1 "$work/tests")")")
    printf 'PROGRAMS=%q\nSOURCE=%q\n' "$program" "$PWD" >"$1/places"
}

# boot PAYLOAD OPTION..: once; its status. What it says comes here and goes to the log.
boot() {
    local payload=$1 status=0 tool
    shift
    case $machine in
        vm) tool=(run --timeout "${EVENKEEL_VM_TIMEOUT:-1500}") ;;
        namespaces) tool=(run-ns --timeout "${EVENKEEL_VM_TIMEOUT:-600}") ;;
    esac
    "$bed/${tool[0]}" "${tool[@]:1}" "$@" "$payload" | sed -u 's/\r$//' | tee -a "$work/log" || status=$?
    return "$status"
}

# verdict NAME STATUS WANTED: checks that failed have said so; a guest that went away has not.
verdict() {
    case $2 in
        "$3" | 1) ;;
        *) echo "FAIL  $1: the payload ended with $2 instead of $3" | tee -a "$work/log" ;;
    esac
}

for name in "$@"; do
    payload=$work/$name
    cp -r "$common" "$payload"
    cp "tests/vm/$name/test.sh" "$payload"
    echo "# $name"
    status=0
    case $name in
        upgrade) upgraded "$payload/upgraded" ;;
        host) host_tests "$payload" ;;
        reboot)
            disk=(--keep-disk "$work/disk")
            boot "$payload" "${disk[@]}" || status=$?
            verdict "$name" "$status" 0
            if [ "$machine" = vm ]; then
                touch "$payload/cut"
                status=0
                boot "$payload" "${disk[@]}" --kill-on "boot 2: checked" || status=$?
                verdict "$name" "$status" 137
                rm "$payload/cut"
                status=0
                boot "$payload" "${disk[@]}" || status=$?
                verdict "$name" "$status" 0
                continue
            fi
            status=0
            ;;
    esac
    boot "$payload" ${disk[@]+"${disk[@]}"} || status=$?
    verdict "$name" "$status" 0
    disk=()
done
passed=$(grep -c '^ok ' "$work/log" || true)
failed=$(grep -c '^FAIL ' "$work/log" || true)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
