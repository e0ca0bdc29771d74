# Both binaries are replaced on disk by those of another version, as a package manager does it: by rename. Running
# monitors are of the old version until their containers are started anew.
. /payload/checks.sh

exe() { readlink "/proc/$1/exe"; }
# The monitor is the parent of a container's first process.
monitor_of() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"; }
says() { evenkeel logs "$1" | grep "$2"; }

install_evenkeel
rootfs /srv/rootfs
cat >/etc/evenkeel/shop.toml <<'T'
project = "shop"
[images.box]
rootfs = "/srv/rootfs"
[containers.old]
image = "box"
command = ["/bin/sh", "-c", "echo begun; while :; do sleep 1; echo tick; done"]
restart = "always"
resources = { pids = 20 }
[containers.crashes]
image = "box"
command = ["/bin/sleep", "1000000"]
restart = "always"
[containers.leaves]
image = "box"
command = ["/bin/sleep", "1000000"]
T
start_service
old=$(container_pid shop/old) crashes=$(container_pid shop/crashes) leaves=$(container_pid shop/leaves)
# The service said READY, so each of them runs. If one does not, the rest of this means little: say what is known.
case "$old $crashes $leaves" in
    *null*) fail "all run when the service is ready"; evenkeel inspect shop/old; journalctl -u evenkeel --no-pager | tail -20 ;;
    *) ok "all run when the service is ready" ;;
esac
monitor=$(monitor_of "$old")
version=$(evenkeel version)

install -m755 /payload/upgraded/evenkeel /usr/local/bin/evenkeel.new
install -m755 /payload/upgraded/evenkeel-monitor /usr/local/bin/evenkeel-monitor.new
mv /usr/local/bin/evenkeel.new /usr/local/bin/evenkeel
mv /usr/local/bin/evenkeel-monitor.new /usr/local/bin/evenkeel-monitor
[ "$(evenkeel version)" != "$version" ] && ok "another version is installed" || fail "it is still $version"
refute "the running monitor is not the file that is installed" test "/proc/$monitor/exe" -ef /usr/local/bin/evenkeel-monitor
reconciler=$(main_pid)
refute "nor is the running service" test "/proc/$reconciler/exe" -ef /usr/local/bin/evenkeel

check "restart" systemctl restart evenkeel
check "the service is the new version" test "/proc/$(main_pid)/exe" -ef /usr/local/bin/evenkeel
check "the plan is empty across versions" as_declared
same "no process was touched" "$old $crashes $leaves" \
    "$(container_pid shop/old) $(container_pid shop/crashes) $(container_pid shop/leaves)"
same "nor was a monitor" "$monitor" "$(monitor_of "$old")"
check "an old monitor answers exec" evenkeel exec shop/old echo hello
check "its log is read" says shop/old begun
lines=$(evenkeel logs shop/old | wc -l)
eventually "and goes on" sh -c "[ \$(evenkeel logs shop/old | wc -l) -gt $lines ]"

sed -i 's/pids = 20/pids = 30/' /etc/evenkeel/shop.toml
eventually "a live change goes through an old monitor" as_declared
same "without touching the process" "$old" "$(container_pid shop/old)"

kill -9 "$crashes"
eventually "an old monitor restarts its container" sh -c "p=\$(evenkeel ps --json shop/crashes | grep -m1 '\"pid\"' | tr -dc 0-9); [ -n \"\$p\" ] && [ \$p != $crashes ]"
check "the plan is still empty" as_declared

sed -i '/containers.leaves/,$d' /etc/evenkeel/shop.toml
check "removal is applied" evenkeel apply -f /etc/evenkeel --lock-timeout 1m
refute "an old monitor stops its container" test -d "/proc/$leaves"

kill -9 "$monitor"
eventually "the loop starts anew what lost its monitor" sh -c "p=\$(evenkeel ps --json shop/old | grep -m1 '\"pid\"' | tr -dc 0-9); [ -n \"\$p\" ] && [ \$p != $old ]"
eventually "all is as declared" as_declared
new=$(container_pid shop/old)
refute "the old process is gone" test -d "/proc/$old"
check "its monitor is of the new version" grep -q evenkeel-monitor "/proc/$(monitor_of "$new")/cmdline"

systemctl stop evenkeel
check "down" evenkeel down -f /etc/evenkeel
refute "no monitor is left" pidof evenkeel-monitor
finish
