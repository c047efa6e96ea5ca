#!/usr/bin/env python3
"""Side by side: Look against Debian's redis-server, the same redis-benchmark lines, interleaved rounds.

    compat/bench/run.py                    three rounds of every line, memory at 1 M keys (about 8 minutes)
    compat/bench/run.py --quick            one short round, to see that it works
    compat/bench/run.py --memory 1000000,10000000 --restart 5000000
    compat/bench/run.py --look redis-server    the harness itself: the same server on both sides

Look always syncs its log. Redis runs twice: always synced, and without persistence. One server runs at a time, each
round starts it on an empty directory, and rounds alternate, so that a slow minute of the machine hits all alike.
Prints a Markdown table of medians; the server's CPU time and context switches come from /proc around each line.
"""

import argparse
import csv
import io
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")

# (name, command of redis-benchmark, clients, pipeline, requests)
LINES = [
    ("SET P64", "set", 50, 64, 1_000_000),
    ("SET P16", "set", 50, 16, 600_000),
    ("SET P1", "set", 50, 1, 120_000),
    ("SET P1, 500 clients", "set", 500, 1, 120_000),
    ("GET P64", "get", 50, 64, 1_500_000),
    ("GET P16", "get", 50, 16, 1_000_000),
    ("GET P1", "get", 50, 1, 200_000),
    ("GET P1, 500 clients", "get", 500, 1, 200_000),
    ("INCR P64", "incr", 50, 64, 1_000_000),
    ("INCR P16", "incr", 50, 16, 600_000),
    ("INCR P1", "incr", 50, 1, 120_000),
    ("MSET P64", "mset", 50, 64, 150_000),
    ("MSET P16", "mset", 50, 16, 150_000),
    ("MSET P1", "mset", 50, 1, 60_000),
]

# Least ratio of Look to (always-synced Redis, Redis without persistence); None = no goal.
GOALS = {
    "SET P64": (3.0, 1.0),
    "SET P16": (2.0, 0.8),
    "SET P1": (1.0, None),
    "SET P1, 500 clients": (1.0, None),
    "GET P64": (1.5, 1.5),
    "GET P16": (1.2, 1.2),
    "GET P1": (1.0, 1.0),
}


class Server:
    """One server process on an empty directory."""

    def __init__(self, kind, options, directory=None):
        self.kind = kind
        self.owned = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix=f"bench-{kind}-", dir=options.dir)
        self.port = free_port()
        self.log = open(os.path.join(self.directory, "server.log"), "ab")
        self.process = subprocess.Popen(
            self.command(options), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        self.pid = self.process.pid
        self.ready_after = self.await_ready()

    def command(self, options):
        common = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if self.kind == "look" and not options.look.endswith("redis-server"):
            return [options.look, *common, "--dir", os.path.join(self.directory, "data")]
        sync = ["--appendonly", "no"] if self.kind == "none" else ["--appendonly", "yes", "--appendfsync", "always"]
        # The test is of commands, not of rewriting the file beside them.
        return [options.redis, *common, "--dir", self.directory, "--save", "", "--auto-aof-rewrite-percentage", "0", *sync]

    def await_ready(self):
        begin = time.monotonic()
        while time.monotonic() - begin < 300:
            if self.process.poll() is not None:
                break
            try:
                if self.ask(b"GET", b"nosuchkey").startswith((b"$-1", b"_")):
                    return time.monotonic() - begin
            except OSError:
                pass
            time.sleep(0.005)
        text = Path(self.directory, "server.log").read_text(errors="replace")[-2000:]
        sys.exit(f"{self.kind}: the server does not answer:\n{text}")

    def ask(self, *args):
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as s:
            s.sendall(request(*args))
            return s.recv(4096)

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def switches(self):
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                for line in (task / "status").read_text().splitlines():
                    if "ctxt_switches" in line:
                        total += int(line.split()[1])
            except OSError:
                pass  # the thread ended meanwhile
        return total

    def resident_bytes(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        return 0

    def stop(self, sig=signal.SIGTERM, keep=False):
        self.process.send_signal(sig)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        if self.owned and not keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def request(*args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_line(server, line, options):
    name, command, clients, pipeline, requests = line
    requests = max(requests // options.divide, clients * pipeline * 2)
    cpu, switches = server.cpu_seconds(), server.switches()
    output = subprocess.run(
        ["redis-benchmark", "-p", str(server.port), "-t", command, "-c", str(clients), "-P", str(pipeline),
         "-n", str(requests), "-r", "1000000", "-d", "64", "--csv"],
        check=True, capture_output=True, text=True,
    ).stdout
    rows = [row for row in csv.DictReader(io.StringIO(output)) if row.get("rps")]
    if len(rows) != 1:
        sys.exit(f"{server.kind}: {name}: redis-benchmark said {output!r}")
    return {
        "rps": float(rows[0]["rps"]),
        "p50": float(rows[0]["p50_latency_ms"]),
        "p99": float(rows[0]["p99_latency_ms"]),
        "cpu_us": (server.cpu_seconds() - cpu) * 1e6 / requests,
        "switches": (server.switches() - switches) / requests,
    }


def fill(server, keys):
    """Keys of 16 bytes, values of 64, by pipelined SETs; every reply is read."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=600) as s:
        replies = s.makefile("rb")
        for first in range(0, keys, 5000):
            last = min(first + 5000, keys)
            s.sendall(b"".join(request(b"SET", b"key:%012d" % i, b"%064d" % (i * 7919)) for i in range(first, last)))
            for _ in range(first, last):
                reply = replies.readline()
                if reply != b"+OK\r\n":
                    sys.exit(f"{server.kind}: SET said {reply!r}")


def measure_memory(kind, keys, options):
    server = Server(kind, options)
    empty = server.resident_bytes()
    fill(server, keys)
    full = server.resident_bytes() - empty
    time.sleep(options.settle)
    settled = server.resident_bytes() - empty
    server.stop()
    return full / keys, settled / keys


def measure_restart(kind, keys, options):
    """kill -9 with so many keys: how long until the first read is answered."""
    server = Server(kind, options)
    fill(server, keys)
    time.sleep(options.settle)
    server.stop(signal.SIGKILL, keep=True)
    again = Server(kind, options, server.directory)
    seconds = again.ready_after
    value = again.ask(b"GET", b"key:%012d" % (keys - 1))
    if b"%064d" % ((keys - 1) * 7919) not in value:
        sys.exit(f"{kind}: after the restart GET said {value!r}")
    again.stop()
    shutil.rmtree(server.directory, ignore_errors=True)
    return seconds


def median(results, kind, name, what):
    return statistics.median(r[what] for r in results[kind][name])


def mark(ratio, goal):
    if goal is None:
        return f"{ratio:.2f}x"
    return f"{ratio:.2f}x (goal {goal:g}x{'' if ratio >= goal else ', MISSED'})"


def speed_table(results, lines):
    print("| | Look /s | Redis always /s | Redis none /s | Look : always | Look : none | p99 ms (Look / always / none) |")
    print("|---|---|---|---|---|---|---|")
    for name, *_ in lines:
        look, always, none = (median(results, kind, name, "rps") for kind in ("look", "always", "none"))
        goals = GOALS.get(name, (None, None))
        tails = " / ".join(f"{median(results, kind, name, 'p99'):.2f}" for kind in ("look", "always", "none"))
        print(f"| {name} | {look:,.0f} | {always:,.0f} | {none:,.0f} | {mark(look / always, goals[0])} "
              f"| {mark(look / none, goals[1])} | {tails} |")


def cost_table(results, lines):
    print("\n| | server CPU us/op: Look | always | none | context switches/op: Look | always | none |")
    print("|---|---|---|---|---|---|---|")
    for name, *_ in lines:
        cpu = [f"{median(results, kind, name, 'cpu_us'):.2f}" for kind in ("look", "always", "none")]
        switches = [f"{median(results, kind, name, 'switches'):.3f}" for kind in ("look", "always", "none")]
        print(f"| {name} | {' | '.join(cpu + switches)} |")


def spread(results, lines):
    """How far rounds lay apart: a ratio within this is noise."""
    worst = 0.0
    for kind in results:
        for name, *_ in lines:
            values = [r["rps"] for r in results[kind][name]]
            worst = max(worst, (max(values) - min(values)) / statistics.median(values))
    return worst


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.returncode == 0 else "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--look", default=str(REPO / "target/release/look"))
    parser.add_argument("--redis", default="redis-server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="lines whose name holds this text")
    parser.add_argument("--divide", type=int, default=1, help="requests are divided by this")
    parser.add_argument("--memory", default="1000000", help="key counts, comma separated; empty for none")
    parser.add_argument("--restart", type=int, default=0, help="keys for the restart measurement")
    parser.add_argument("--settle", type=float, default=20, help="seconds until memory counts as settled (past the window)")
    parser.add_argument("--dir", help="where data directories are made (a real disk, not tmpfs)")
    parser.add_argument("--json", help="raw results go to this file")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.divide, options.memory, options.settle = 1, 20, "", 1
    for program in (options.look, options.redis, "redis-benchmark"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing (cargo build --release; apt-get install redis-server redis-tools)")
    lines = [line for line in LINES if not options.only or options.only.lower() in line[0].lower()]
    kinds = ("look", "always", "none")
    busy = os.getloadavg()[0]
    results = {kind: {name: [] for name, *_ in lines} for kind in kinds}
    for number in range(options.rounds):
        for kind in kinds:
            server = Server(kind, options)
            try:
                # Reads must find something: a line of GETs alone would measure misses.
                if not any(line[1] == "set" for line in lines):
                    fill_line = ("SET P64", "set", 50, 64, 1_000_000)
                    run_line(server, fill_line, options)
                for line in lines:
                    results[kind][line[0]].append(run_line(server, line, options))
            finally:
                server.stop()
            print(f"round {number + 1} of {options.rounds}: {kind} done", file=sys.stderr)
    if busy > 0.5:
        print(f"**Others used this machine: load average {busy:.1f} before the first round. Trust the CPU times, not the rates.**\n")
    commit = first_line("git", "-C", str(REPO), "rev-parse", "--short", "HEAD")
    print(f"`compat/bench/run.py --rounds {options.rounds}`, commit {commit}, {first_line(options.redis, '--version')}, "
          f"{os.cpu_count()} cores, Linux {platform.release()}.\n"
          f"Medians of {options.rounds} interleaved rounds, which lay up to {spread(results, lines):.0%} apart. "
          "`redis-benchmark -c 50 -r 1000000 -d 64`, on the same machine as the server.\n")
    speed_table(results, lines)
    cost_table(results, lines)
    counts = [int(n) for n in options.memory.split(",") if n]
    if counts:
        print("\n| resident bytes per key (16-byte keys, 64-byte values) | Look, at once | Look, settled | Redis, no persistence |")
        print("|---|---|---|---|")
    for keys in counts:
        (look, settled), (redis, _) = (measure_memory(kind, keys, options) for kind in ("look", "none"))
        print(f"| {keys:,} keys | {look:.0f} | {settled:.0f} | {redis:.0f} |")
    if options.restart:
        look, redis = (measure_restart(kind, options.restart, options) for kind in ("look", "always"))
        print(f"\nFirst read after `kill -9` with {options.restart:,} keys: Look {look:.2f} s, Redis (append-only file) {redis:.2f} s.")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
