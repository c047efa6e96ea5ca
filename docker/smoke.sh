#!/usr/bin/env bash
# The image's last stage with the binary of this machine, as three nodes: docker/smoke.sh
# Needs a Docker engine (Debian's docker.io); the nodes use the host's network on loopback, so no bridge is needed.
# Without an engine it says so and ends with 77. `DOCKER_HOST` chooses another engine.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! docker info >/dev/null 2>&1; then
    echo "=== SKIPPED, NOTHING CHECKED: no Docker engine answers"
    exit 77
fi

target="$(uname -m)-unknown-linux-gnu"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target"
context=$(mktemp -d)
trap 'docker rm -f look-smoke-1 look-smoke-2 look-smoke-3 >/dev/null 2>&1 || true; rm -rf "$context"' EXIT
mkdir -p "$context/docker" "$context/data"
cp "target/$target/release/look" "$context/look"
strip --strip-debug "$context/look"
cp docker/look.conf "$context/docker/"
touch "$context/data/.keep"
sed -n '/^FROM scratch/,$p' docker/Dockerfile | sed 's/--from=build \//.\//' | sed 's#COPY ./look#COPY look#; s#COPY ./data#COPY data#' >"$context/Dockerfile"
file "$context/look" | grep -q 'statically linked\|static-pie linked'
DOCKER_BUILDKIT=0 docker build -q -t look-smoke "$context"
docker images --format '{{.Repository}}: {{.Size}}' look-smoke

cluster=1=127.0.0.1:17001,2=127.0.0.1:17002,3=127.0.0.1:17003
for n in 1 2 3; do
    docker run -d --network host --name "look-smoke-$n" look-smoke --bind 127.0.0.1 --dir "/data/node$n" \
        --port "1637$n" --node-id "$n" --peer-addr "127.0.0.1:1700$n" --initial-cluster "$cluster" >/dev/null
done
for _ in $(seq 100); do
    [ "$(redis-cli -p 16371 SET smoke works 2>/dev/null)" = OK ] && break
    sleep 0.2
done
for n in 1 2 3; do
    got=$(redis-cli -p "1637$n" GET smoke)
    echo "node $n: $got"
    [ "$got" = works ] || { docker logs "look-smoke-$n"; exit 1; }
done
docker stop -t 20 look-smoke-1 look-smoke-2 look-smoke-3 >/dev/null
echo "docker: three nodes from scratch: ok"
