# Power cuts over an apply: a project is applied, changed and partly removed. Sourced by tests/power.sh.

prepare() {
    mkdir -p "$work/project/rootfs"/{bin,data,etc,tmp}
    cp "$(command -v busybox)" "$work/project/rootfs/bin/"
    for applet in sh sleep sync; do ln -s busybox "$work/project/rootfs/bin/$applet"; done
    for number in $(seq 40); do head -c $((number * 700)) /dev/urandom >"$work/project/rootfs/data/$number"; done
    # The same tree as an archive of one layer, with another file on top.
    cp -a "$work/project/rootfs" "$work/tree"
    echo "of the archive" >"$work/tree/etc/archive"
    tar -C "$work/tree" -cf "$work/project/tree.tar" .
    cat >"$work/project/1.toml" <<TOML
project = "power"
[images.tree]
rootfs = "rootfs"
[volumes.data]
[containers.first]
image = "tree"
command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
network_mode = "none"
mounts = { "/data" = "data" }
TOML
    {
        cat "$work/project/1.toml"
        cat <<TOML
[images.packed]
rootfs = "tree.tar"
[containers.second]
image = "packed"
command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
network_mode = "none"
TOML
    } >"$work/project/2.toml"
    sed 's/network_mode = "none"/&\nenvironment = { CHANGED = "yes" }/' "$work/project/2.toml" >"$work/project/3.toml"
}

writes() {
    local number
    for number in 1 2 3; do
        "${evenkeel[@]}" apply -f "$work/project/$number.toml" >/dev/null
        said "applied-$number"
    done
    said leaving
    "${evenkeel[@]}" down -f "$work/project/1.toml" --yes >/dev/null
    said down
}

finish() {
    [ ! -d "$EVENKEEL_ROOT" ] || "$binaries/evenkeel" down --project power --volumes --yes >/dev/null
}
