#!/usr/bin/env bash
# Other people's clients against a running server: compat/clients/run.sh PORT
# Installs what it needs under target/compat. A language that is not on this machine is skipped, and said so.
set -euo pipefail
port=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$here/../../target/compat
mkdir -p "$work"
failed=0

have() { command -v "$1" >/dev/null 2>&1 || { echo "=== SKIPPED, NOTHING CHECKED: no $1 for compat/clients/$2"; return 1; }; }

client() { # name, function
    if ! "$2"; then
        echo "=== FAILED: $1" >&2
        failed=1
    fi
}

python() (
    set -e
    [ -x "$work/python/bin/python" ] || python3 -m venv "$work/python"
    "$work/python/bin/pip" install -q --disable-pip-version-check -r "$here/python/requirements.txt"
    "$work/python/bin/python" "$here/python/smoke.py" "$port"
)

node_clients() (
    set -e
    mkdir -p "$work/node"
    cp "$here/node/package.json" "$here/node/smoke.js" "$work/node/"
    cd "$work/node"
    npm install --silent --no-audit --no-fund
    timeout 120 node smoke.js "$port"
)

go_client() (
    set -e
    cd "$here/go"
    go run . "$port"
)

java_client() (
    set -e
    mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/java"
    java -cp "$work/java/*" "$here/java/Smoke.java" "$port"
)

if have python3 python; then client python python; fi
if have npm node; then client node node_clients; fi
if have go go; then
    # Debian 12's own Go is too old for the client.
    if go version | grep -qE 'go1\.(2[2-9]|[3-9][0-9])'; then client go go_client; else echo "=== SKIPPED, NOTHING CHECKED: $(go version) is older than 1.22"; fi
fi
if have mvn java; then client java java_client; fi
exit $failed
