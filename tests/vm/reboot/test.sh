# The machine goes down and comes up: everything is back, in the order of its dependencies, with its data and addresses.
# tests/vm.sh boots the same disk several times; /var/lib/boots counts.
. /payload/checks.sh

started() { date -d "$(field started_at "$1")" +%s%N; }
address() { evenkeel ps --json "$1" | grep -A1 -m1 '"addresses"' | tail -1 | tr -d ' ",'; }
written() { evenkeel exec shop/db cat /data/boots; }

boot=$(($(cat /var/lib/boots 2>/dev/null || echo 0) + 1))
echo "$boot" >/var/lib/boots

if [ "$boot" = 1 ]; then
    install_evenkeel
    rootfs /srv/rootfs
    # `db` is healthy three seconds after it runs; `web` sorts after it, `app` before it.
    cat >/etc/evenkeel/shop.toml <<'T'
project = "shop"
[images.box]
rootfs = "/srv/rootfs"
[networks.back]
[volumes.data]
[containers.app]
image = "box"
command = ["/bin/sleep", "1000000"]
networks = ["back"]
restart = "always"
depends_on = { db = "healthy" }
[containers.db]
image = "box"
command = ["/bin/sh", "-c", "echo run >> /data/boots; sleep 3; echo yes > /tmp/ready; exec sleep 1000000"]
networks = ["back"]
mounts = { "/data" = "data", "/tmp" = { tmpfs = "1MiB" } }
restart = "always"
healthcheck = { command = ["/bin/cat", "/tmp/ready"], interval = "1s", timeout = "20s", retries = 60 }
[containers.web]
image = "box"
command = ["/bin/sleep", "1000000"]
networks = ["back"]
restart = "always"
depends_on = { app = "started" }
T
    start_service
    check "enabled" systemctl enable evenkeel
    eventually "up" as_declared
    for name in app db web; do address shop/$name; done >/var/lib/addresses
else
    # Nobody but systemd starts it.
    eventually "boot $boot: the service is ready" systemctl is-active evenkeel
    eventually "boot $boot: as declared" as_declared
    same "boot $boot: the same addresses" "$(cat /var/lib/addresses)" "$(for name in app db web; do address shop/$name; done)"
    check "boot $boot: nothing was restarted on the way" sh -c '! evenkeel ps --json | grep "\"restarts\": [1-9]"'
fi
same "boot $boot: the volume has one line a boot" "$boot" "$(written | wc -l)"
same "boot $boot: db is healthy" healthy "$(field health shop/db)"
waited=$((($(started shop/app) - $(started shop/db)) / 1000000))
[ "$waited" -ge 3000 ] && ok "boot $boot: app waited for a healthy db ($waited ms)" ||
    fail "boot $boot: app started $waited ms after db, which needs 3000 to be healthy"
[ "$(started shop/web)" -ge "$(started shop/app)" ] && ok "boot $boot: web after app" || fail "boot $boot: web before app"
check "boot $boot: the network works" evenkeel exec shop/web /bin/sh -c "echo | /bin/busybox nslookup db 127.0.0.11"
sync
# Where tests/vm.sh asks for it, this line cuts the power.
echo "boot $boot: checked"
[ ! -e /payload/cut ] || sleep 60
finish
