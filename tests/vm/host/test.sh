# The project's own host tests on this kernel: those that need neither cargo nor a registry.
. /payload/checks.sh

# The tests find the programs where cargo built them.
. /payload/places
mkdir -p "$PROGRAMS" "$SOURCE"
cp /payload/evenkeel /payload/evenkeel-monitor /payload/evenkeel-runtime "$PROGRAMS"
cp /payload/busybox /bin/busybox
cd "$SOURCE" || exit 1
for binary in /payload/tests/*; do
    name=${binary##*/}
    "$binary" --test-threads=1 >"$OUT/$name" 2>&1
    status=$?
    # Each test is a check, whatever the harness.
    sed -n -E "s/^test (.*) \.\.\. ok$/ok    $name: \1/p; s/^test (.*) \.\.\. FAILED.*/FAIL  $name: \1/p; s/^(test .* \.\.\. ignored.*)/      $name: \1/p" "$OUT/$name"
    same "$name" 0 "$status"
    [ "$status" = 0 ] || tail -60 "$OUT/$name"
done
finish
