#!/usr/bin/env bash
# The images of examples/ from Debian's packages, as an OCI layout each: what tests/host_examples.rs pushes to a registry
# of its own. Nothing is installed and nothing started; packages are downloaded and unpacked.
#
# Usage: tests/stacks/images.sh DIRECTORY      makes DIRECTORY/NAME with the tag `latest`; what is there is kept
#
# An entrypoint does what that of the image's namesake on Docker Hub is documented to do with what the examples set.
set -euo pipefail
to=$(realpath -m "${1:?the directory for the images}")
mkdir -p "$to"

# One at a time; a second run waits and finds all there.
exec 9>"$to/lock"
flock 9
version=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
[ "$(cat "$to/version" 2>/dev/null)" = "$version" ] && exit
rm -rf "$to"/.making.*
work=$(mktemp -d "$to/.making.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The versions that this Debian has.
newest() { apt-cache depends --important "$1" | sed -n "s/.*Depends: $2\$/\1/p"; }
php=$(newest php-cli 'php\([0-9.]*\)-cli')
postgres=$(newest postgresql 'postgresql-\([0-9]*\)')
declare -A packages=(
    [adminer]="adminer php$php-cli php$php-common php$php-pgsql tzdata"
    [caddy]="caddy media-types"
    [nginx]="nginx"
    [postgres]="postgresql-$postgres postgresql-client-$postgres tzdata"
    [redis]="redis-server redis-tools"
)
apt-cache depends --important --recurse ${packages[*]} busybox-static >"$work/dependencies"

# with_libraries PACKAGE..: these, and the libraries that they depend on. PostgreSQL starts without LLVM.
with_libraries() {
    awk -v wanted="$*" '
        /^[^ ]/ { from = $1 }
        /^ .*Depends: z?lib/ && $NF !~ /^libllvm|-perl$/ { libraries[from] = libraries[from] " " $NF }
        END {
            for (count = split(wanted, queue, " "); done < count;) {
                package = queue[++done]
                if (seen[package]++) continue
                print package
                for (number = split(libraries[package], more, " "); number > 0; number--) queue[++count] = more[number]
            }
        }' "$work/dependencies"
}

# Downloaded by root: the directory is not for apt's own user.
mkdir "$work/debs" "$work/layouts"
(cd "$work/debs" &&
    apt-get -qq -o APT::Sandbox::User=root download $(with_libraries ${packages[*]} busybox-static))

# root NAME: a root filesystem of its packages, their libraries and busybox's tools.
root() {
    local package
    mkdir -p "$work/$1"/{bin,dev,etc,proc,root,run,sys,tmp,usr/local/bin,var/tmp}
    chmod 1777 "$work/$1"/{tmp,var/tmp}
    for package in $(with_libraries ${packages[$1]} busybox-static); do
        dpkg-deb --extract "$work/debs/$package"_*.deb "$work/$1"
    done
    rm -rf "$work/$1"/usr/share/{doc,i18n,lintian,locale,man} "$work/$1"/usr/lib/*/gconv
    chroot "$work/$1" /bin/busybox --install -s /bin
    echo 'root:x:0:0:root:/root:/bin/sh' >"$work/$1/etc/passwd"
    echo 'root:x:0:' >"$work/$1/etc/group"
}

# image NAME CONFIG: packs a root filesystem as one plain layer, with this `config` of the OCI image configuration.
image() {
    local layout=$work/layouts/$1 architecture layer config manifest
    architecture=$(dpkg --print-architecture)
    mkdir -p "$layout/blobs/sha256"
    layer=$(tar -C "$work/$1" --numeric-owner -cf - . | blob "$layout")
    config=$(blob "$layout" <<EOT
{"architecture": "$architecture", "os": "linux", "config": $2,
 "rootfs": {"type": "layers", "diff_ids": ["sha256:${layer% *}"]}}
EOT
    )
    manifest=$(blob "$layout" <<EOT
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
 "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:${config% *}", "size": ${config#* }},
 "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:${layer% *}", "size": ${layer#* }}]}
EOT
    )
    cat >"$layout/index.json" <<EOT
{"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
 "digest": "sha256:${manifest% *}", "size": ${manifest#* }, "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}
EOT
    echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
}

# Standard input into the blobs of a layout: prints its SHA-256 and its size.
blob() {
    cat >"$1/blob"
    set -- "$1" "$(sha256sum "$1/blob" | cut -d' ' -f1)" "$(stat -c %s "$1/blob")"
    mv "$1/blob" "$1/blobs/sha256/$2"
    echo "$2 $3"
}

make_caddy() {
    root caddy
    image caddy '{"Cmd": ["caddy", "run", "--config", "/etc/caddy/Caddyfile"], "WorkingDir": "/srv",
        "Env": ["PATH=/usr/bin:/bin", "XDG_CONFIG_HOME=/config", "XDG_DATA_HOME=/data"]}'
}

make_nginx() {
    root nginx
    image nginx '{"Cmd": ["nginx", "-g", "daemon off;"], "Env": ["PATH=/usr/sbin:/usr/bin:/bin"], "StopSignal": "SIGQUIT"}'
}

make_redis() {
    root redis
    mkdir "$work/redis/data"
    image redis '{"Cmd": ["redis-server"], "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/data", "Volumes": {"/data": {}}}'
}

make_adminer() {
    root adminer
    mkdir -p "$work/adminer/etc/php/$php/cli/conf.d"
    printf '%s\n' extension=ctype extension=pgsql session.save_path=/tmp >"$work/adminer/etc/php/$php/cli/conf.d/10-adminer.ini"
    image adminer '{"Cmd": ["php'"$php"'", "-S", "[::]:8080", "/usr/share/adminer/adminer.php"], "User": "65534:65534",
        "Env": ["PATH=/usr/bin:/bin"]}'
}

make_postgres() {
    root postgres
    rm -rf "$work/postgres/usr/lib/postgresql/$postgres/lib/bitcode"
    echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >>"$work/postgres/etc/passwd"
    echo 'postgres:x:999:' >>"$work/postgres/etc/group"
    mkdir -p "$work/postgres"/{var/lib/postgresql/data,var/run/postgresql,docker-entrypoint-initdb.d}
    chown 999:999 "$work/postgres"/var/lib/postgresql{,/data} "$work/postgres/var/run/postgresql"
    chmod 700 "$work/postgres/var/lib/postgresql/data"
    cat >"$work/postgres/usr/local/bin/entrypoint" <<'EOT'
#!/bin/sh
# A new cluster gets its owner, its database, and what lies in /docker-entrypoint-initdb.d.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --no-locale -E UTF8
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -o "-c listen_addresses=''" -w start
    psql -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
    for file in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -e "$file" ] || psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"
    done
    pg_ctl -m fast -w stop
fi
exec "$@"
EOT
    chmod 755 "$work/postgres/usr/local/bin/entrypoint"
    image postgres '{"Entrypoint": ["entrypoint"], "Cmd": ["postgres", "-c", "listen_addresses=*"], "User": "999:999",
        "Env": ["PATH=/usr/local/bin:/usr/lib/postgresql/'"$postgres"'/bin:/usr/bin:/bin", "PGDATA=/var/lib/postgresql/data"],
        "Volumes": {"/var/lib/postgresql/data": {}}, "StopSignal": "SIGINT"}'
}

makers=()
for name in "${!packages[@]}"; do
    "make_$name" &
    makers+=($!)
done
for maker in "${makers[@]}"; do
    wait "$maker"
done

for layout in "$work"/layouts/*; do
    rm -rf "$to/${layout##*/}"
    mv "$layout" "$to/"
done
echo "$version" >"$to/version"
