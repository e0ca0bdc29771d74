# Power cuts over pulls: two images that share a layer come from Debian's registry on loopback, and then a tag moves.
# Sourced by tests/power.sh.

prepare() {
    local port number
    # Chosen by the kernel, and free again.
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export EVENKEEL_POWER_REGISTRY=127.0.0.1:$port
    cat >"$work/registry.yml" <<YAML
version: 0.1
log: { accesslog: { disabled: true }, level: error }
storage: { filesystem: { rootdirectory: $work/registry } }
http: { addr: "$EVENKEEL_POWER_REGISTRY" }
YAML
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry=$!
    for _ in $(seq 200); do
        ! (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null || break
        sleep 0.1
    done
    for number in base one two moved; do
        mkdir -p "$work/made/$number"
        for _ in $(seq 12); do head -c $((RANDOM * 8)) /dev/urandom >"$work/made/$number/$_"; done
        chmod 4751 "$work/made/$number/1" && chown 7:8 "$work/made/$number/2" && ln -s 3 "$work/made/$number/link"
    done
    (
        cd "$work"
        umoci init --layout layout
        for number in one two moved; do
            umoci new --image "layout:$number"
            umoci insert --image "layout:$number" made/base /base
            umoci insert --image "layout:$number" "made/$number" "/$number"
        done
    ) >/dev/null 2>&1
    publish one one && publish two two
    # What every layer must be: by its diff id, unpacked by tar(1).
    local blob id
    for blob in "$work"/layout/blobs/sha256/*; do
        gzip -t "$blob" 2>/dev/null || continue
        id=$(zcat "$blob" | sha256sum | cut -d ' ' -f 1)
        mkdir -p "$work/known/$id"
        zcat "$blob" | tar -C "$work/known/$id" -xpf -
    done
}

# publish IMAGE TAG: the registry has this image under this tag, and `$work/id-IMAGE` holds its id.
publish() {
    skopeo --insecure-policy copy --quiet --dest-tls-verify=false --preserve-digests \
        "oci:$work/layout:$1" "docker://$EVENKEEL_POWER_REGISTRY/power:$2"
    skopeo inspect --raw "oci:$work/layout:$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["config"]["digest"])' >"$work/id-$1"
}

writes() {
    "${evenkeel[@]}" image pull "$EVENKEEL_POWER_REGISTRY/power:one" >/dev/null
    said one
    "${evenkeel[@]}" image pull "$EVENKEEL_POWER_REGISTRY/power:two" >/dev/null
    said two
    publish moved one
    "${evenkeel[@]}" image pull "$EVENKEEL_POWER_REGISTRY/power:one" >/dev/null
    said moved
}

finish() {
    kill "$registry"
}
