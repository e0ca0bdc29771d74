# The service under systemd, in a guest of shared/vm: ready, reload, kill, restart, stop; containers outlive all of it.
# `tests/vm.sh` puts both binaries, the unit and busybox beside this file.
bad=0
ok() { echo "ok    $*"; }
fail() { echo "FAIL  $*"; bad=1; }
check() { local what=$1; shift; if "$@" >/dev/null 2>&1; then ok "$what"; else fail "$what"; fi; }
eventually() {
    local what=$1 try; shift
    for try in $(seq 240); do "$@" >/dev/null 2>&1 && { ok "$what"; return; }; sleep 0.25; done
    fail "$what"
}
main_pid() { systemctl show -P MainPID evenkeel; }
workload() { evenkeel -f /etc/evenkeel ps --json | grep -m1 '"pid"' | tr -dc 0-9; }
# By bash alone: the guest has no curl, and a static busybox cannot look up names with the guest's libraries.
page() { timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8088; printf "GET / HTTP/1.0\r\n\r\n" >&3; grep -q "hello from the service" <&3'; }
as_declared() { evenkeel plan -f /etc/evenkeel --detailed-exitcode; }

install -m755 /payload/evenkeel /payload/evenkeel-monitor /usr/local/bin/
install -m644 /payload/evenkeel.service /etc/systemd/system/
mkdir -p /etc/evenkeel /srv/rootfs/bin /srv/rootfs/www
cp /payload/busybox /srv/rootfs/bin/
for applet in sh httpd; do ln -s busybox /srv/rootfs/bin/$applet; done
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

systemctl daemon-reload
systemctl start evenkeel || { journalctl -u evenkeel --no-pager | tail -20; fail "start"; }
[ "$(systemctl is-active evenkeel)" = active ] && ok "READY after the first round" || fail "READY"
[ "$(systemctl show -P StatusText evenkeel)" = "as declared" ] && ok "STATUS" ||
    fail "STATUS: $(systemctl show -P StatusText evenkeel)"
eventually "the page is served" page
pid=$(workload)

sed -i 's/pids = 20/pids = 30/' /etc/evenkeel/shop.toml
check "reload" systemctl reload evenkeel
eventually "the edit is applied" as_declared
[ "$(workload)" = "$pid" ] && ok "by reload no process is touched" || fail "reload touched the process"

kill -9 "$(main_pid)"
eventually "restarted after SIGKILL" sh -c '[ "$(systemctl show -P NRestarts evenkeel)" -ge 1 ] && systemctl is-active evenkeel'
check "the page is served after it" page
check "restart" systemctl restart evenkeel
check "the page is served after a restart" page
check "stop" systemctl stop evenkeel
check "the page is served without the service" page
[ "$(workload)" = "$pid" ] && ok "the process outlived all of it" || fail "another process: $(workload) instead of $pid"

check "down" evenkeel down -f /etc/evenkeel
[ -z "$(ip -o link | grep ' ek')" ] && ok "no links are left" || fail "links are left"
exit $bad
