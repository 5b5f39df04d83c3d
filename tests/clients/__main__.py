"""Runs an unmodified NATS client for Python, nats-py, through the core of a broker.

    python3 tests/clients --program target/debug/nats-broker                  every check
    python3 tests/clients --program ... --only headers,drain                  some of them
    python3 tests/clients --program nats-server                               the same against nats-server

Needs the packages of tests/clients/requirements.txt; `.ci/run clients` makes an environment that has them. Everything
stays on the loopback address, on ports that the broker finds. Ends with status 1 at the first check that fails, and
says what was expected and what came."""

import argparse
import asyncio
import inspect
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True

try:
    import aiohttp  # noqa: F401  nats-py wants it for WebSocket
    import cryptography  # noqa: F401
    import nats  # noqa: F401
    import nkeys  # noqa: F401
except ImportError as error:
    sys.exit(f"tests/clients: {error}. Install what tests/clients/requirements.txt names, or use `.ci/run clients`.")

import checks
from broker import Failure, Lab

# Of one check; the longest takes about three seconds.
SECONDS = 60


async def run(check, lab):
    await asyncio.wait_for(check(lab), SECONDS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the broker; takes the flags and files of nats-server")
    parser.add_argument("--only", default="", help=f"of {', '.join(checks.ALL)}")
    args = parser.parse_args()
    names = [name for name in args.only.split(",") if name] or list(checks.ALL)
    unknown = [name for name in names if name not in checks.ALL]
    program = shutil.which(args.program)
    if unknown or not program or not os.access(program, os.X_OK):
        parser.error(f"there is no check {unknown[0]}" if unknown else f"there is no program {args.program}")
    # The client reports every error that a check provokes; the checks look at them themselves.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clients-") as directory:
        lab = Lab(program, directory)
        for name in names:
            start = time.monotonic()
            try:
                asyncio.run(run(checks.ALL[name], lab))
            except Exception as error:  # whatever it is, the check did not pass
                print(f"FAIL {name}: {inspect.getdoc(checks.ALL[name])}")
                if isinstance(error, Failure):
                    print(f"  {error}", flush=True)
                else:
                    traceback.print_exception(error, file=sys.stdout)
                return 1
            print(f"ok   {name:<18} {time.monotonic() - start:5.2f} s  {inspect.getdoc(checks.ALL[name])}", flush=True)
    print(f"{len(names)} checks passed in {time.monotonic() - began:.1f} s")
    return 0


sys.exit(main())
