"""The loads, their goals, and the running of one of them on two servers in turn."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys


@dataclasses.dataclass(frozen=True)
class Goal:
    """At most so much processor time a message and at least so many messages, as ratios to nats-server."""

    cpu: float = 0
    rate: float = 0
    # The 99th percentile of the latency must be below nats-server's instead.
    latency: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    load: str
    # Flag -> value of `choria bench LOAD`.
    flags: dict
    goal: Goal
    # Runs beside it, until it is done.
    beside: tuple = ()


MANY, MIDDLE = Goal(0.4, 3), Goal(0.6, 1.4)
ROWS = [
    Row("16", "1→1, 16 bytes", "pubsub", {"messages": 12_000_000, "size": 16}, MANY),
    Row("128", "1→1, 128 bytes", "pubsub", {"messages": 6_000_000, "size": 128}, MANY),
    Row("1024", "1→1, 1024 bytes", "pubsub", {"messages": 2_000_000, "size": 1024}, MIDDLE),
    Row("fanout20", "1→20, 128 bytes", "fanout", {"messages": 500_000, "subscribers": 20, "size": 128}, MANY),
    Row("fanout1000", "1→1000, 128 bytes", "fanout", {"messages": 12_000, "subscribers": 1000, "size": 128}, MANY),
    Row("storm", "100→1, 128 bytes", "reply-storm", {"messages": 3_000_000, "publishers": 100, "size": 128}, MIDDLE),
    Row("subjects", "100 000 subjects, one subscription, 16 bytes", "pubsub",
        {"messages": 4_000_000, "size": 16, "subjects": 100_000}, MANY),
    Row("subjects-each", "100 000 subjects, one subscription each, 16 bytes", "pubsub",
        {"messages": 4_000_000, "size": 16, "subjects": 100_000, "subscribe-each": True}, MANY),
    Row("request", "request and reply, one after the other", "request", {"requests": 30_000, "pairs": 1, "size": 16},
        Goal(0.7, 1.15)),
    Row("quiet", "100 quiet pairs beside one flooding publisher", "request",
        {"requests": 100, "pairs": 100, "size": 16, "pause": "20ms"}, Goal(latency=True),
        beside=("pubsub", "--messages", "1000000000", "--size", "128")),
]


@dataclasses.dataclass
class Figures:
    """Medians of one server."""

    per_second: float
    cpu_us: float
    p50: float
    p99: float
    rss: float


@dataclasses.dataclass
class Result:
    row: Row
    way: str
    ours: Figures
    theirs: Figures

    @property
    def cpu(self):
        return self.ours.cpu_us / self.theirs.cpu_us

    @property
    def rate(self):
        return self.ours.per_second / self.theirs.per_second

    @property
    def latency(self):
        return self.ours.p99 / self.theirs.p99

    def is_good(self):
        goal = self.row.goal
        return self.latency < 1 if goal.latency else self.cpu <= goal.cpu and self.rate >= goal.rate

    def verdict(self):
        return "met" if self.is_good() else "**missed**"

    def document(self):
        return {"row": self.row.name, "way": self.way, "cpu": self.cpu, "rate": self.rate, "p99": self.latency,
                "ours": dataclasses.asdict(self.ours), "nats_server": dataclasses.asdict(self.theirs), "met": self.is_good()}


def measure(row, way, pair, pki, args):
    """Loads both programs in turn, a fresh process each time."""
    runs = ([], [])
    for number in range(args.rounds):
        # Who begins changes, so that a machine that slows down slows both.
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            with pair[side].running(pki) as (url, pid):
                runs[side].append(once(row, url, pid, pki, args))
    return Result(row, way, *(figures(documents) for documents in runs))


def once(row, url, pid, pki, args):
    server = ["--server", url, *(["--ca", str(pki.ca)] if pki else [])]
    flags = []
    for flag, value in row.flags.items():
        if flag in ("messages", "requests") and not row.goal.latency:
            value = max(1000, int(value * args.scale))
        flags += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    with contextlib.ExitStack() as stack:
        if row.beside:
            beside = stack.enter_context(subprocess.Popen([args.choria, "bench", *row.beside, *server],
                                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(beside.kill)
        done = subprocess.run([args.choria, "bench", row.load, *flags, *server, "--pid", str(pid), "--json"],
                              capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{row.name} on {url}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def figures(documents):
    def median(value):
        return statistics.median(map(value, documents))

    def latency(document, quantile):
        return (document.get("latency_us") or {}).get(quantile, 0)

    return Figures(
        per_second=median(lambda document: document["messages_per_s"]),
        cpu_us=median(lambda document: document["server_cpu_us_per_message"]),
        p50=median(lambda document: latency(document, "p50")),
        p99=median(lambda document: latency(document, "p99")),
        rss=median(lambda document: document["server_rss_bytes"]),
    )
