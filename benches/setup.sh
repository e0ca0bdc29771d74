#!/bin/sh
# Installs what `cargo bench --bench compare` and `--bench pull` compare with, from Debian's packages. Nothing is started: where systemd
# runs, the services that the packages bring are stopped again; the benchmark starts its own, in namespaces of its own.
set -eu

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends \
    busybox-static e2fsprogs iproute2 mount util-linux \
    docker.io docker-compose iptables \
    docker-registry skopeo tar gzip zstd \
    podman crun runc netavark aardvark-dns

if [ -d /run/systemd/system ]; then
    systemctl disable --now docker.socket docker.service containerd.service podman.socket docker-registry.service || true
fi
