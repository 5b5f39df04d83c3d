"""Does to a network of real programs what networks do to them, and tells what became of the honest nodes.

    python3 tests/faults                         every fault; Markdown table on stdout
    python3 tests/faults --only herd,half-open   some of them
    python3 tests/faults --write                 puts the table into docs/faults.md
    python3 tests/faults --small                 a few minutes, for an unoptimised build

Needs the program (target/release/choria unless --program says otherwise) and Python 3.11. Everything stays on the loopback
address; some faults want 25 000 open files. Ends with status 1 when a row is not good."""

import argparse
import json
import os
import pathlib
import resource
import sys

sys.dont_write_bytecode = True

import rows
from lab import say

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/faults.md"
BEGIN, END = "<!-- table: python3 tests/faults --write -->", "<!-- end of table -->"
HEAD = "| Fault | What was sent | Honest nodes | Lost | Twice | Times and figures | |\n|---|---|---|---|---|---|---|\n"


def plan(args):
    if args.small:
        return rows.Plan(args.program, 120, 400, (100,), 200, 200, (0.05, 0.5, 0.95))
    return rows.Plan(args.program, args.nodes, args.many, (500, 5000), 2000, 2000, (0.05, 0.25, 0.5, 0.75, 0.95))


def line(row):
    cells = [row.fault, row.sent, row.honest, *("" if n is None else str(n) for n in (row.lost, row.twice)), row.times,
             "good" if row.good else "**not good**"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def write(text):
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "target/release/choria"))
    parser.add_argument("--nodes", type=int, default=1000, help="nodes of a wave")
    parser.add_argument("--many", type=int, default=10_000, help="nodes where memory and reconnects are measured")
    parser.add_argument("--only", default="", help=f"of {', '.join(rows.ALL)}")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    names = [name for name in args.only.split(",") if name] or list(rows.ALL)
    unknown = [name for name in names if name not in rows.ALL]
    if unknown or not os.access(args.program, os.X_OK):
        parser.error(f"there is no fault {unknown[0]}" if unknown else f"there is no program {args.program}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    done = []
    for name in names:
        say(f"== {name}")
        try:
            for row in rows.ALL[name](plan(args)):
                done.append(row)
                say(line(row).strip())
        except (TimeoutError, RuntimeError, OSError, AssertionError) as error:
            done.append(rows.Row(name, "", f"it did not come to its end: {error}", good=False))
            say(line(done[-1]).strip())
    table = HEAD + "".join(map(line, done))
    if args.write:
        write(table)
    if args.json:
        print(json.dumps([vars(row) for row in done], indent=1))
    else:
        print(table)
    return 0 if all(row.good for row in done) else 1


sys.exit(main())
