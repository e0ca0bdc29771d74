# What the payloads of tests/vm.sh share, to be sourced: one line a check, led by `ok` or `FAIL`, and a host to look at.
# tests/vm.sh puts it beside test.sh, with both binaries, the unit and busybox; /payload is that directory.

failures=0
ok() { echo "ok    $*"; }
fail() { echo "FAIL  $*"; failures=$((failures + 1)); }
# check WHAT COMMAND..: it succeeds.  refute: it does not.
check() { local what=$1; shift; if "$@" >/dev/null 2>&1; then ok "$what"; else fail "$what"; fi; }
refute() { local what=$1; shift; if "$@" >/dev/null 2>&1; then fail "$what"; else ok "$what"; fi; }
# same WHAT WANTED FOUND
same() { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1: \`$3\` instead of \`$2\`"; fi; }
# eventually WHAT COMMAND..: it succeeds within two minutes; an emulated machine takes its time.
eventually() {
    local what=$1 try; shift
    for try in $(seq 480); do "$@" >/dev/null 2>&1 && { ok "$what"; return; }; sleep 0.25; done
    fail "$what"
}
# The last line of every payload. A status of 1 has its reason on the lines above.
finish() { [ "$failures" -eq 0 ]; exit; }

install_evenkeel() {
    install -m755 /payload/evenkeel /payload/evenkeel-monitor /payload/evenkeel-runtime /usr/local/bin/
    install -m644 /payload/evenkeel.service /etc/systemd/system/
    mkdir -p /etc/evenkeel
}
# rootfs DIRECTORY: busybox, with the applets that payloads use.
rootfs() {
    local applet
    mkdir -p "$1/bin" "$1/etc" "$1/proc" "$1/tmp"
    cp /payload/busybox "$1/bin/"
    for applet in cat date dd echo head httpd mknod sh sleep; do ln -sf busybox "$1/bin/$applet"; done
}
start_service() {
    systemctl daemon-reload
    systemctl start evenkeel || { journalctl -u evenkeel --no-pager | tail -20; fail "start of the service"; }
}
# Whether the guest has cgroup version 2 and nothing else; in namespaces the cgroups are those of the host.
unified() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }
main_pid() { systemctl show -P MainPID evenkeel; }
# field KEY CONTAINER: of `evenkeel ps --json`.
field() { evenkeel ps --json "$2" | grep -m1 "\"$1\"" | sed 's/^[^:]*: *//; s/,$//; s/"//g'; }
container_pid() { field pid "$1"; }
# group PID: the directory of its cgroup, version 2.
group() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")"; }
as_declared() { evenkeel plan -f /etc/evenkeel --detailed-exitcode; }
