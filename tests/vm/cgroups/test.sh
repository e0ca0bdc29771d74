# Limits, device filter, memory kills, freezing, killing and pressure, as a kernel with cgroup version 2 has them. Without
# the service: what changes here `evenkeel apply` and `evenkeel-runtime` changed.
. /payload/checks.sh

tree=/sys/fs/cgroup
value() { tr '\n' ' ' <"$g/$1" | sed 's/ $//'; }
# What is switched on in the cgroups of everybody else.
others() { find $tree -mindepth 2 -name cgroup.subtree_control -not -path "$tree/evenkeel-*" -exec grep -H . {} + | sort; }
apply() { evenkeel apply -f /etc/evenkeel --lock-timeout 1m; }
limits() { sed -i "/^# limits/,/^# end/c # limits\n$1\n# end" /etc/evenkeel/lab.toml; }
killed() { [ "$(field oom_killed lab/hog)" = true ]; }
inside() { evenkeel exec lab/box /bin/sh -c "$1"; }

install_evenkeel
rootfs /srv/rootfs
cat >/etc/evenkeel/lab.toml <<'T'
project = "lab"
[images.box]
rootfs = "/srv/rootfs"
[containers.box]
image = "box"
command = ["/bin/sleep", "1000000"]
cap_add = ["MKNOD"]
devices = ["/dev/vda:/dev/disk:r"]
# limits
resources = { memory = "32MiB", memory_swap = "48MiB", memory_reservation = "16MiB", cpus = 0.5, cpu_shares = 512, cpuset = "0", pids = 20 }
# end
[containers.hog]
image = "box"
command = ["/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$$x$$x; done"]
resources = { memory = "16MiB" }
[containers.spin]
image = "box"
command = ["/bin/sh", "-c", "while :; do :; done"]
resources = { cpus = 0.1 }
T

# What it does not need systemd turns off; so are controllers here.
find $tree -depth -name cgroup.subtree_control | while read -r file; do
    for controller in cpu cpuset; do echo "-$controller" >"$file"; done 2>/dev/null
done
off=$(for controller in cpu cpuset memory pids; do
    grep -qw "$controller" $tree/cgroup.subtree_control || echo -n "$controller "
done)
[ -n "$off" ] && ok "at first the root hands on no ${off% }" || fail "no controller could be turned off"
before=$(others)
check "apply" apply
for controller in cpu cpuset memory pids; do
    check "the root hands on $controller" grep -qw $controller $tree/cgroup.subtree_control
done
same "no other cgroup was changed" "$before" "$(others)"

pid=$(container_pid lab/box) g=$(group "$(container_pid lab/box)")
same "the monitor is not in the container's cgroup" "$pid" "$(value cgroup.procs)"
same "the parent has no processes of its own" "" "$(cat "$(dirname "$g")/cgroup.procs")"
same "memory.max" 33554432 "$(value memory.max)"
same "memory.swap.max is the swap alone" 16777216 "$(value memory.swap.max)"
same "memory.low" 16777216 "$(value memory.low)"
same "cpu.max" "50000 100000" "$(value cpu.max)"
same "cpu.weight" 20 "$(value cpu.weight)"
same "cpuset.cpus" 0 "$(value cpuset.cpus)"
same "cpuset.cpus.effective" 0 "$(value cpuset.cpus.effective)"
same "pids.max" 20 "$(value pids.max)"
check "/dev/null opens" inside 'echo x >/dev/null'
check "a declared device is read" inside 'head -c 1 /dev/disk >/dev/null'
refute "but does not open for writing" inside 'exec 3>>/dev/disk'
# The disk of the payload: a device that nobody declared.
disk=$(findmnt -n -o SOURCE /payload)
check "a node may be made" inside "mknod /tmp/disk b $((0x$(stat -c %t "$disk"))) $((0x$(stat -c %T "$disk")))"
check "and is of no use" sh -c "evenkeel exec lab/box /bin/sh -c 'exec 3</tmp/disk' 2>&1 | grep 'Operation not permitted'"

# Its orphans stay: process 1 is a `sleep`, and the container has no room for a further process.
refute "a 21st process is refused" inside 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 5 & done; wait'
check "the kernel counted it" sh -c "grep -q '^max [1-9]' $g/pids.events"

limits 'resources = { memory = "40MiB", cpus = 0.25, cpu_shares = 2048, cpuset = "0-1", pids = 30 }'
check "other limits" apply
same "are applied to the running process" "$pid" "$(container_pid lab/box)"
same "memory.max now" 41943040 "$(value memory.max)"
same "cpu.max now" "25000 100000" "$(value cpu.max)"
same "cpu.weight now" 79 "$(value cpu.weight)"
same "cpuset.cpus.effective now" 0-1 "$(value cpuset.cpus.effective)"
same "pids.max now" 30 "$(value pids.max)"
same "memory.low is lifted" 0 "$(value memory.low)"
check "the plan is empty" as_declared
limits ''
check "no limits" apply
same "the same process" "$pid" "$(container_pid lab/box)"
same "all are lifted" "max / max 100000 / 100 / max" \
    "$(value memory.max) / $(value cpu.max) / $(value cpu.weight) / $(value pids.max)"
check "the plan is empty" as_declared
echo 7 >"$g/pids.max"
refute "a limit that somebody else set is drift" as_declared
check "and is put back" apply
same "to no limit" max "$(value pids.max)"

eventually "a process that wants too much memory is killed, and ps says so" killed
g=$(group "$(container_pid lab/spin)")
stalled() { awk '/^some/ { sub("total=", "", $5); print $5 }' "$g/cpu.pressure"; }
throttled() { [ "$(stalled)" -gt 0 ]; }
if [ -e "$g/cpu.pressure" ] && cat "$g/cpu.pressure" >/dev/null 2>&1; then
    eventually "a throttled process is under pressure" throttled
    floor=$(stalled)
    told=$(evenkeel stats --no-stream --json lab/spin | awk '/"pressure"/ { on = 1 } on && /total_microseconds/ { gsub(/[^0-9]/, ""); print; exit }')
    [ "${told:-0}" -ge "$floor" ] && ok "stats tells it: $told us, at least $floor" || fail "stats tells ${told:-nothing} of $floor us"
else
    fail "this kernel has no pressure"
fi
check "systemd reads its units anew" systemctl daemon-reload
same "which leaves the limits" "10000 100000" "$(value cpu.max)"
before=$(others) # It has given its own slices back what the first lines of this file took.

# The runtime alone, on a bundle.
mkdir -p /srv/bundle
cp -r /srv/rootfs /srv/bundle/rootfs
(cd /srv/bundle && evenkeel-runtime spec)
sed -i -z 's/"args": \[[^]]*\]/"args": ["\/bin\/sh", "-c", "while :; do echo >> \/tmp\/beats; sleep 0.1; done"]/; s/"terminal": true/"terminal": false/; s/"readonly": true/"readonly": false/' \
    /srv/bundle/config.json
check "the runtime runs a bundle" evenkeel-runtime run -d --bundle /srv/bundle bundle
pid=$(evenkeel-runtime state bundle | grep -m1 '"pid"' | tr -dc 0-9) g=$(group "$(evenkeel-runtime state bundle | grep -m1 '"pid"' | tr -dc 0-9)")
beats() { wc -l </srv/bundle/rootfs/tmp/beats; }
beating() { [ "$(beats)" -gt "$1" ]; }
eventually "it works" beating 3
check "pause" evenkeel-runtime pause bundle
same "is cgroup.freeze" 1 "$(value cgroup.freeze)"
check "all of it is frozen" grep -q '^frozen 1' "$g/cgroup.events"
count=$(beats); sleep 2
same "nothing moves" "$count" "$(beats)"
check "resume" evenkeel-runtime resume bundle
eventually "goes on" beating "$count"
check "pause before the end" evenkeel-runtime pause bundle
check "delete kills what is frozen" evenkeel-runtime delete --force bundle
refute "no process is left" test -d "/proc/$pid"
refute "and no cgroup" test -d "$g"

check "down" evenkeel down -f /etc/evenkeel
same "no cgroup is left" "" "$(find $tree -maxdepth 1 -name 'evenkeel*')"
same "no other cgroup was changed by all of it" "$before" "$(others)"
finish
