# The service under systemd: ready, reload, kill, a loop that hangs, restart, stop; containers outlive all of it.
. /payload/checks.sh

# By bash alone: the guest has no curl, and a static busybox cannot look up names with the guest's libraries.
page() { timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8088; printf "GET / HTTP/1.0\r\n\r\n" >&3; grep -q "hello from the service" <&3'; }
restarts() { systemctl show -P NRestarts evenkeel; }
restarted() { [ "$(restarts)" -gt "$1" ] && systemctl is-active evenkeel; }

install_evenkeel
rootfs /srv/rootfs
mkdir /srv/rootfs/www
echo "hello from the service" >/srv/rootfs/www/index.html
cat >/etc/evenkeel/shop.toml <<'T'
project = "shop"
[images.box]
rootfs = "/srv/rootfs"
[containers.web]
image = "box"
command = ["/bin/httpd", "-f", "-p", "80", "-h", "/www"]
ports = { 8088 = 80 }
restart = "always"
resources = { memory = "32MiB", pids = 20 }
T
# The unit's own 60 s would be all that this payload waits for.
mkdir -p /etc/systemd/system/evenkeel.service.d
printf '[Service]\nWatchdogSec=15\n' >/etc/systemd/system/evenkeel.service.d/watchdog.conf

start_service
same "READY after the first round" active "$(systemctl is-active evenkeel)"
same "STATUS" "as declared" "$(systemctl show -P StatusText evenkeel)"
eventually "the page is served" page
pid=$(container_pid shop/web)

sed -i 's/pids = 20/pids = 30/' /etc/evenkeel/shop.toml
check "reload" systemctl reload evenkeel
eventually "the edit is applied" as_declared
same "by reload no process is touched" "$pid" "$(container_pid shop/web)"

before=$(restarts)
kill -9 "$(main_pid)"
eventually "restarted after SIGKILL" restarted "$before"
check "the page is served after it" page

before=$(restarts)
hung=$(main_pid)
kill -STOP "$hung"
eventually "a loop that hangs is killed by the watchdog and started again" restarted "$before"
check "the journal says why" sh -c 'journalctl -u evenkeel -o cat | grep -i "watchdog timeout"'
[ "$(main_pid)" != "$hung" ] && ok "it is another process" || fail "the process that hung still runs"
same "the watchdog touches no container" "$pid" "$(container_pid shop/web)"
before=$(restarts)
sleep 20
same "a loop that waits is not taken for one that hangs" "$before" "$(restarts)"

check "restart" systemctl restart evenkeel
check "the page is served after a restart" page
! unified || refute "systemd finds nothing left over at a start" sh -c 'journalctl -u evenkeel -o cat | grep -iE "left-over|remains running"'
check "stop" systemctl stop evenkeel
check "the page is served without the service" page
same "the process outlived all of it" "$pid" "$(container_pid shop/web)"

check "down" evenkeel down -f /etc/evenkeel
same "no links are left" "" "$(ip -o link | grep ' ek')"
! unified || same "no cgroup is left" "" "$(find /sys/fs/cgroup -maxdepth 1 -name 'evenkeel-*')"
finish
