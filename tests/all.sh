#!/usr/bin/env bash
# Every check of the project, on Debian, as root: format, lints, docs, all tests (those with real containers too), the
# examples by an independent validator, the quickstart, and that nothing of it is left on the host.
#
# Usage: tests/all.sh [STAGE..]      stages: see `stages` below; all of them when none is named
# Prints one line per stage and a last line `N passed, N failed`. A missing privilege is a failure, not a skip.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$HOME/.cargo/bin:/usr/sbin:/sbin:$PATH" CARGO_TERM_COLOR=never CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
# Nothing of the caller's own installation may have a say in the tests.
unset EVENKEEL_ROOT EVENKEEL_RUN EVENKEEL_LOG

stages=(packages privileges format clippy docs tests examples unit-file install quickstart left-behind)
logs=$(mktemp -d /tmp/evenkeel-tests.XXXXXX)
passed=0
failed=0

stage_packages() {
    local packages=(bind9-dnsutils busybox-static ca-certificates curl dnsmasq-base docker-registry docker.io erofs-utils gcc
        iproute2 libc6-dev nftables openssl podman procps python3 python3-jsonschema skopeo strace umoci util-linux xz-utils zstd)
    local missing=() package
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq || return
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || return
    fi
    # Where cargo lets tests keep files; they would make it themselves.
    tests/stacks/images.sh "${CARGO_TARGET_DIR:-target}/tmp/stacks" && return
    # What apt knows may be older than what there is.
    apt-get update -qq && tests/stacks/images.sh "${CARGO_TARGET_DIR:-target}/tmp/stacks"
}

stage_privileges() {
    local word wrong=0
    [ "$(id -u)" = 0 ] || { echo "not root"; wrong=1; }
    # Bits of capabilities(7) that an engine cannot do without.
    local effective
    effective=$((16#$(awk '/^CapEff/ {print $2}' /proc/self/status)))
    for word in chown:0 dac_override:1 fowner:3 fsetid:4 kill:5 setgid:6 setuid:7 setpcap:8 net_admin:12 \
        sys_chroot:18 sys_ptrace:19 sys_admin:21 mknod:27 setfcap:31; do
        (( effective >> ${word#*:} & 1 )) || { echo "no CAP_${word%:*}"; wrong=1; }
    done
    unshare --mount --net --pid --fork --uts --ipc --cgroup true || { echo "no new namespaces"; wrong=1; }
    local directory
    directory=$(mktemp -d) && mkdir "$directory"/{lower,upper,work,merged}
    unshare --mount mount -t overlay overlay -o \
        "lowerdir=$directory/lower,upperdir=$directory/upper,workdir=$directory/work" "$directory/merged" ||
        { echo "no overlayfs on $(df --output=fstype "$directory" | tail -1)"; wrong=1; }
    rm -rf "$directory"
    unshare --net nft add table inet evenkeel_probe || { echo "no nftables"; wrong=1; }
    unshare --net ip link add name probe type bridge || { echo "no bridges"; wrong=1; }
    unshare --net ip link add name probe0 type veth peer name probe1 || { echo "no veth pairs"; wrong=1; }
    return $wrong
}

stage_format() { cargo fmt --all --check; }
stage_clippy() { cargo clippy --locked --all-targets --quiet -- -D warnings; }
stage_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet; }

# Counts its tests beside itself. What a test ignores here it would have to do: that is a failure.
stage_tests() {
    local status=0 ok bad ignored
    cargo test --locked --no-fail-fast 2>&1 || status=1
    # What this function wrote so far is the log of its stage.
    read -r ok bad ignored < <(awk '/^test result:/ { ok += $4; bad += $6; ignored += $8 }
        END { print ok + 0, bad + 0, ignored + 0 }' "$logs/tests")
    echo "$ok passed, $bad failed, $ignored ignored" >"$logs/tests.summary"
    passed=$((passed + ok))
    failed=$((failed + bad))
    [ "$ignored" = 0 ] || { echo "$ignored tests were ignored"; return 1; }
    return $status
}

# By Python's own TOML reader and JSON Schema, which know nothing of ours. Strings with `${NAME}` stay as they are.
stage_examples() {
    python3 - <<'PY'
import json, pathlib, sys, tomllib
import jsonschema
checker = getattr(jsonschema, "Draft202012Validator", None) or jsonschema.Draft7Validator
schema, host_schema = (json.loads(pathlib.Path(f"schemas/{what}.schema.json").read_text()) for what in ["manifest", "host"])
for each in [schema, host_schema]:
    checker.check_schema(each)
wrong = 0
host_file = pathlib.Path("examples/host.toml")
manifests = sorted(path for path in pathlib.Path("examples").glob("**/*.toml") if path != host_file)
if not manifests:
    sys.exit("there are no examples")
# Resolved manifests too, and the cases that resolve.
cases = pathlib.Path("tests/manifest")
manifests += sorted(cases.glob("*/expected.toml"))
manifests += [path for path in sorted(cases.glob("*/evenkeel.toml")) if path.with_name("expected.toml").exists()]
for path in [host_file, *manifests]:
    errors = list(checker(host_schema if path == host_file else schema).iter_errors(tomllib.loads(path.read_text())))
    print(f"{path}: {'valid' if not errors else 'not valid'}")
    for error in errors:
        wrong = 1
        print(f"  {'/'.join(map(str, error.absolute_path))}: {error.message}")
# And what the parser refuses for its shape, the schema refuses.
for case in ["unknown-key", "wrong-types", "missing-image", "image-without-source", "image-with-two-sources", "bad-names",
             "bad-quantities", "bad-choices", "mount-forms", "healthchecks", "extension-tables", "replicas-out-of-range"]:
    if not list(checker(schema).iter_errors(tomllib.loads((cases / case / "evenkeel.toml").read_text()))):
        wrong = 1
        print(f"{case}: the schema takes what the parser refuses")
sys.exit(wrong)
PY
}

stage_unit-file() {
    command -v systemd-analyze >/dev/null || { echo "no systemd here, nothing checked"; return 0; }
    # The program and the manual pages are not installed here; anything else that systemd says is a mistake.
    local said
    said=$(systemd-analyze verify --man=no examples/systemd/evenkeel.service 2>&1 |
        grep -v 'Command /usr/local/bin/evenkeel is not executable' | grep 'evenkeel.service')
    [ -z "$said" ] || { echo "$said"; return 1; }
}

# All binaries side by side, completions and manual pages.
stage_install() {
    local to status=0
    to=$(mktemp -d) || return
    {
        cargo install --locked --quiet --path . --root "$to" --target-dir "${CARGO_TARGET_DIR:-target}" &&
            [ -x "$to/bin/evenkeel" ] && [ -x "$to/bin/evenkeel-monitor" ] &&
            "$to/bin/evenkeel-runtime" features | python3 -m json.tool >/dev/null &&
            "$to/bin/evenkeel" version &&
            "$to/bin/evenkeel" completions bash | bash -n &&
            "$to/bin/evenkeel" man "$to/man" && [ -s "$to/man/evenkeel.1" ] && [ -s "$to/man/evenkeel-apply.1" ]
    } || status=1
    rm -rf "$to"
    return $status
}

# Twice, since it must work a second time; then down, with the words that it printed.
stage_quickstart() {
    local status=0
    EVENKEEL_QUICKSTART=$(mktemp -d /tmp/evenkeel-quickstart.XXXXXX) || return
    export EVENKEEL_QUICKSTART
    examples/quickstart.sh && examples/quickstart.sh || status=1
    EVENKEEL_ROOT=$EVENKEEL_QUICKSTART/root EVENKEEL_RUN=$EVENKEEL_QUICKSTART/run \
        EVENKEEL_QUICKSTART_ROOTFS=$EVENKEEL_QUICKSTART/rootfs "${CARGO_TARGET_DIR:-target}/release/evenkeel" \
        down -f examples/quickstart/evenkeel.toml --volumes --yes || status=1
    rm -rf "$EVENKEEL_QUICKSTART" || status=1
    unset EVENKEEL_QUICKSTART
    return $status
}

# What a container engine could leave behind, one thing a line.
footprint() {
    # Names from the command line, since a process may have renamed itself.
    for pid in /proc/[0-9]*; do
        { tr '\0' ' ' <"$pid/cmdline"; } 2>/dev/null | grep -aE 'evenkeel-monitor|target/(debug|release)/evenkeel|docker-registry|busybox' |
            sed "s|^|process ${pid#/proc/} |"
    done
    awk '{print "mount " $5}' /proc/self/mountinfo
    ip -o link show | awk -F': ' '{print "link " $2}'
    find /sys/fs/cgroup -type d -path '*evenkeel*' 2>/dev/null | sed 's/^/cgroup /'
    nft list tables 2>/dev/null | sed 's/^table/table/'
    lsns --noheadings --type net --output NS 2>/dev/null | sed 's/^/netns /'
    # The runtime's state directory stays where Podman used it, empty, as runc's does.
    find /run /var/lib -maxdepth 1 -name 'evenkeel*' ! \( -name evenkeel-runtime -empty \) | sed 's/^/directory /'
    find /tmp -maxdepth 1 -name 'evenkeel-quickstart.*' | sed 's/^/directory /'
}

# Processes that are on their way out get a moment.
stage_left-behind() {
    local try left
    for try in $(seq 50); do
        left=$(comm -13 <(sort -u "$logs/before") <(footprint | sort -u))
        [ -z "$left" ] && return 0
        sleep 0.1
    done
    echo "left behind:"
    echo "$left"
    return 1
}

# Of a long log, what tells why: panics, errors, and the end.
excerpt() {
    if [ "$(wc -l <"$1")" -gt 200 ]; then
        grep -nE -A8 'panicked at|^error|FAILED|^---- ' "$1" | head -150 | sed 's/^/    /'
        echo "    .."
        tail -40 "$1" | sed 's/^/    /'
    else
        sed 's/^/    /' "$1"
    fi
}

run() {
    local stage=$1 begun=$SECONDS verdict
    if "stage_$stage" >"$logs/$stage" 2>&1; then
        verdict=ok
        passed=$((passed + 1))
    else
        verdict=FAILED
        failed=$((failed + 1))
    fi
    printf '%-12s %-7s %4ds  %s\n' "$stage" "$verdict" $((SECONDS - begun)) "$(cat "$logs/$stage.summary" 2>/dev/null)"
    [ "$verdict" = ok ] || excerpt "$logs/$stage"
}

footprint >"$logs/before"
for stage in "${@:-${stages[@]}}"; do
    run "$stage"
    # Debian starts the services of packages that it installs: they are not of the tests.
    [ "$stage" = packages ] && footprint >"$logs/before"
    # Without these nothing below can work, and its failures would only hide the reason.
    case $stage in packages | privileges) [ "$failed" = 0 ] || break ;; esac
done
printf '\nall of it: %ds\n%d passed, %d failed\n' $SECONDS "$passed" "$failed"
if [ "$failed" = 0 ]; then
    rm -rf "$logs"
else
    echo "logs: $logs"
    exit 1
fi
