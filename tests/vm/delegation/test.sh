# Who owns which cgroup under systemd: containers and monitors beside the service's own; and the runtime below the
# cgroup that a service of somebody else was given (`Delegate=yes`).
. /payload/checks.sh

tree=/sys/fs/cgroup
service=$tree/system.slice/evenkeel.service

install_evenkeel
rootfs /srv/rootfs
cat >/etc/evenkeel/lab.toml <<'T'
project = "lab"
[images.box]
rootfs = "/srv/rootfs"
[containers.box]
image = "box"
command = ["/bin/sleep", "1000000"]
restart = "always"
resources = { memory = "32MiB", cpus = 0.5, cpuset = "0", pids = 20 }
T
start_service
pid=$(container_pid lab/box) g=$(group "$(container_pid lab/box)")
monitor=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
limits() { echo "$(cat "$g/memory.max") $(cat "$g/cpu.max") $(cat "$g/cpuset.cpus") $(cat "$g/pids.max")"; }
declared=$(limits)
same "limits" "33554432 50000 100000 0 20" "$declared"
case $g in
    $tree/evenkeel-*) ok "the container is not below the service" ;;
    *) fail "the container is in $g" ;;
esac
same "its monitor is beside it, out of the service" "${g%/*}/monitors" "$(group "$monitor")"
same "the service has the loop alone" "$(main_pid)" "$(cat "$service/cgroup.procs")"

check "daemon-reload" systemctl daemon-reload
check "daemon-reexec" systemctl daemon-reexec
check "limits of the service are changed" systemctl set-property --runtime evenkeel MemoryMax=600M CPUWeight=50
same "the container's stay" "$declared" "$(limits)"
check "a slice that needs fewer controllers comes and goes" systemd-run --wait --quiet -p MemoryMax=50M -p AllowedCPUs=0 --slice=brief.slice true
same "the container's stay after it" "$declared" "$(limits)"
systemctl daemon-reload
check "stop" systemctl stop evenkeel
same "the container stays when the service stops" "$pid" "$(cat "$g/cgroup.procs")"
same "and so do its limits" "$declared" "$(limits)"
check "its monitor lives on" test -d "/proc/$monitor"
check "start" systemctl start evenkeel
check "as declared" as_declared
same "the same process" "$pid" "$(container_pid lab/box)"

# A service that was given its cgroup makes containers below it.
mkdir -p /srv/bundle
cp -r /srv/rootfs /srv/bundle/rootfs
(cd /srv/bundle && evenkeel-runtime spec)
cat >/srv/delegated <<'S'
#!/bin/bash
# The processes of a cgroup move to a leaf before it can hand controllers on.
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
if [ "$1" = leaf ]; then
    mkdir "/sys/fs/cgroup$own/service"
    echo $$ >"/sys/fs/cgroup$own/service/cgroup.procs"
fi
sed -i -z 's/"args": \[[^]]*\]/"args": ["\/bin\/sleep", "1000000"]/; s/"terminal": true/"terminal": false/' /srv/bundle/config.json
sed -i "s|\"resources\": {|\"cgroupsPath\": \"$own/box\", \"resources\": { \"memory\": { \"limit\": 20971520 }, \"pids\": { \"limit\": 9 },|" \
    /srv/bundle/config.json
evenkeel-runtime --root /run/delegated run -d --bundle /srv/bundle box </dev/null >/run/delegated.said 2>&1
echo $? >/run/delegated.status
[ "$1" != leaf ] || sleep 1000000
S
chmod 755 /srv/delegated
cp /srv/bundle/config.json /srv/config.json
delegated=$tree/system.slice/delegated.service
others() { find $tree -name cgroup.subtree_control -not -path "$delegated/*" -exec grep -H . {} + | sort; }
systemd-run --quiet --unit=delegated -p Delegate=yes -p KillMode=process sleep 1000000
before=$(others)
systemctl stop delegated
systemd-run --quiet --unit=delegated -p Delegate=yes /srv/delegated leaf
eventually "the runtime ran below a delegated cgroup" test -s /run/delegated.status
same "without an error" "0 " "$(cat /run/delegated.status) $(cat /run/delegated.said)"
same "memory.max below it" 20971520 "$(cat "$delegated/box/memory.max")"
same "pids.max below it" 9 "$(cat "$delegated/box/pids.max")"
same "a process is there" sleep "$(cat "/proc/$(head -1 "$delegated/box/cgroup.procs")/comm")"
same "nothing outside was changed" "$before" "$(others)"
evenkeel-runtime --root /run/delegated delete --force box
systemctl stop delegated

rm /run/delegated.status
cp /srv/config.json /srv/bundle/config.json
systemd-run --quiet --unit=delegated -p Delegate=yes /srv/delegated
eventually "a cgroup with processes of its own" test -s /run/delegated.status
refute "hands nothing on" grep -qx 0 /run/delegated.status
check "which the error says, with the way out" grep -q "move them to a cgroup below it" /run/delegated.said

systemctl stop evenkeel
check "down" evenkeel down -f /etc/evenkeel
same "no cgroup is left" "" "$(find $tree -maxdepth 1 -name 'evenkeel*')"
finish
