"""The faults: each is a function that makes a network, does its worst, and gives rows of the table."""

import asyncio
import contextlib
import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass, field

from lab import Lab, say, wait
from peers import HalfOpen, Pair, forged_events, vanishing_nodes


@dataclass
class Row:
    """What was done, what became of the honest, and whether that is good enough."""

    fault: str
    sent: str
    honest: str
    lost: int | None = None
    twice: int | None = None
    times: str = ""
    good: bool = True
    figures: dict = field(default_factory=dict)


@dataclass
class Plan:
    """How much of everything."""

    program: str
    nodes: int
    many: int
    forged: tuple
    short_lived: int
    half_open: int
    moments: tuple

    def lab(self, **more):
        return Lab(self.program, **more)


def normal_time(network, names="plain{}.real", times=3):
    """How long a real node takes when nothing is wrong; the first start of all warms up."""
    took = [network.time_of_real_node(names.format(number)) for number in range(times + 1)]
    return statistics.median(took[1:])


def seconds(value):
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


# Names that nobody answers to.


def behind(network, normal, fault, sent, names="behind{}.real"):
    """Real nodes that come behind a fault, one after another."""
    took = [network.time_of_real_node(names.format(number)) for number in range(3)]
    lost = 3 - len(network.members([names.format(number) for number in range(3)]))
    worst = max(took)
    return Row(
        fault, sent, "3 real nodes behind it", lost, int(network.metric("choria_provisioner_returned")),
        f"{seconds(worst)} the slowest, {seconds(normal)} normally ({worst / normal:.2f}x)",
        lost == 0 and worst <= 2 * normal, {"normal_s": normal, "behind_s": took},
    )


def forged_through_the_broker(plan):
    for count in plan.forged:
        with plan.lab() as network:
            broker, provisioner = network.broker(), network.provisioner()
            normal = normal_time(network)
            say(f"{count} holders of the token announce themselves and vanish")
            came = asyncio.run(vanishing_nodes(network, count))
            row = behind(network, normal, f"{count} absent nodes, announced by holders of the token",
                         f"{came} connections under as many names, one startup event each, none answers")
            row.good &= broker.alive() and provisioner.alive() and came == count
            yield row


def forged_past_the_broker(plan):
    for count in plan.forged:
        with plan.lab() as network:
            network.broker()
            provisioner = network.provisioner()
            normal = normal_time(network)
            say(f"{count} forged startup events")
            took = asyncio.run(forged_events(network, count))
            row = behind(network, normal, f"{count} forged startup events of absent nodes",
                         f"{count} events in {took * 1e3:.0f} ms, with the rights of a provisioner, past the broker's guard")
            row.good &= provisioner.alive()
            yield row


def forged_without_end(plan):
    rate, lasting = 200, 30
    with plan.lab() as network:
        network.broker()
        provisioner = network.provisioner()
        normal = normal_time(network)
        say(f"{rate} forged startup events a second for {lasting} s")
        flood = threading.Thread(target=lambda: asyncio.run(forged_events(network, rate * lasting, seconds=lasting)))
        flood.start()
        time.sleep(2)
        row = behind(network, normal, "Forged startup events without end",
                     f"{rate} a second for {lasting} s, with the rights of a provisioner")
        row.good &= flood.is_alive() and provisioner.alive()
        flood.join()
        yield row


def short_lived(plan):
    with plan.lab() as network:
        broker, provisioner = network.broker(), network.provisioner()
        normal = normal_time(network)
        rate = 100
        say(f"{plan.short_lived} nodes that live three seconds")
        came = []
        crowd = threading.Thread(target=lambda: came.append(asyncio.run(
            vanishing_nodes(network, plan.short_lived, lives=3.0, at_once=100, per_second=rate))))
        crowd.start()
        time.sleep(2)
        row = behind(network, normal, f"{plan.short_lived} nodes that live three seconds",
                     f"{rate} a second connect, announce themselves, never answer, vanish without a goodbye")
        crowd.join()
        row.good &= broker.alive() and provisioner.alive() and came == [plan.short_lived]
        yield row


# Kills.


def outcome(network, nodes, real=()):
    """Ends the nodes and says who was lost, who was configured twice, and whose files do not fit."""
    time.sleep(2)
    report = nodes.end()
    mismatched = network.mismatched("nodes")
    lost = report["lost"] + len(real) - len(network.members(real))
    if real:
        mismatched += network.mismatched("real")
    for name in mismatched[:5]:
        say(f"files do not fit: {name}")
    doubled = [s["node"] for s in report.get("samples", []) if s["configurations"] > 1 or s["returned"] > 0]
    for name in doubled[:5]:
        say(f"configured twice: {name}")
    return report, lost, report["duplicated"], mismatched


def wave(plan, what, kill, helper="builtin", real=0):
    """A wave of emulated nodes; at each moment something is killed with SIGKILL and started again."""
    with plan.lab(helper=helper) as network:
        parts = {"broker": network.broker(), "provisioner": network.provisioner()}
        names = [f"beside{number}.real" for number in range(real)]
        for name in names:
            network.node(name)
        nodes = network.nodes(plan.nodes, "--rate", "200")
        began = time.monotonic()
        moments = []
        for share in plan.moments:
            nodes.wait_for("members", int(plan.nodes * share))
            moments.append(f"{100 * nodes.count('members') / plan.nodes:.0f}")
            kill(network, parts, names)
        nodes.wait_for("members", plan.nodes, 400)
        took = time.monotonic() - began
        for name in names:
            wait(f"{name} is a member", lambda name=name: network.came_home(name), 200)
        report, lost, twice, mismatched = outcome(network, nodes, names)
        honest = f"{plan.nodes} emulated nodes" + (f", {real} real ones" if real else "")
        good = lost == 0 and twice == 0 and not mismatched and all(part.alive() for part in parts.values())
        return Row(
            f"kill -9 of the {what} in a wave", f"killed and started again when {', '.join(moments)} % were members",
            honest + f"; {len(mismatched)} with a certificate that is not for their key", lost, twice,
            f"all members after {seconds(took)}", good,
            {"moments": moments, "disconnects": report["disconnects"], "failures": report["failures"]},
        )


def kill_provisioner(network, parts, _):
    parts["provisioner"].kill()
    parts["provisioner"] = network.provisioner(connected=False)


def kill_broker(network, parts, _):
    parts["broker"].kill()
    parts["broker"] = network.broker()


def kill_helper(network, parts, _):
    for child in parts["provisioner"].children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def kill_nodes(network, _, names):
    """Each time those that have not been killed yet, a few at a time."""
    living = [p for p in network.running if p.name in names and p.alive()]
    for process in living[:8]:
        process.kill()
        network.running.remove(process)
        network.node(process.name)


def waves(plan):
    yield undisturbed(plan)
    for what, kill, helper, real in (
        ("provisioner", kill_provisioner, "builtin", 0),
        ("broker", kill_broker, "builtin", 0),
        ("helper", kill_helper, "program", 0),
        ("nodes", kill_nodes, "builtin", 24),
    ):
        say(f"wave of {plan.nodes}, {what} killed")
        yield wave(plan, what, kill, helper, real)


def undisturbed(plan):
    say(f"wave of {plan.nodes}, undisturbed")
    row = wave(plan, "", lambda *_: None)
    return Row("A wave without a fault, to compare with", "nothing", row.honest, row.lost, row.twice, row.times, row.good)


# What runs out or is exchanged.


def token_expires(plan):
    with plan.lab() as network:
        network.broker()
        network.provisioner()
        network.token("8s")
        say(f"wave of {plan.nodes}, the token expires")
        nodes = network.nodes(plan.nodes, "--rate", str(plan.nodes / 16))
        began = time.monotonic()
        wait("the token has expired", lambda: network.metric("choria_broker_refused", 'reason="token_expired"', network.stats) > 0)
        time.sleep(3)
        members = nodes.count("members")
        network.token("1d")
        nodes.wait_for("members", plan.nodes, 300)
        took = time.monotonic() - began
        report, lost, twice, mismatched = outcome(network, nodes)
        refused = int(network.metric("choria_broker_refused", 'reason="token_expired"', network.stats))
        yield Row(
            "The token expires in a wave", "valid for 8 s of 16; a new one lies in the file 3 s later",
            f"{plan.nodes} emulated nodes, {members} of them members before; {refused} logins refused; {len(mismatched)} "
            "with a certificate that is not for their key",
            lost, twice, f"all members after {seconds(took)}", lost == twice == 0 and not mismatched and members < plan.nodes,
        )


def authority_changes(plan):
    with plan.lab() as network:
        broker = network.broker()
        network.provisioner()
        say(f"wave of {plan.nodes}, the authority is replaced")
        nodes = network.nodes(plan.nodes, "--rate", str(plan.nodes / 10))
        began = time.monotonic()
        nodes.wait_for("members", plan.nodes // 4)
        network.run("ca", "init", "next")
        trusted, old = network.path("broker/ca.pem"), network.path("ca/ca.pem").read_text()
        trusted.write_text("")
        os.kill(broker.pid, signal.SIGHUP)
        wait("the broker refuses an empty CA file", lambda: broker.says("reload failed"))
        both = network.path("next/ca.pem").read_text() + old
        trusted.write_text(both)
        os.kill(broker.pid, signal.SIGHUP)
        wait("the broker trusts both", lambda: broker.says("configuration reloaded"))
        network.path("next/ca.pem").write_text(both)
        os.rename(network.path("ca"), network.path("former"))
        os.rename(network.path("next"), network.path("ca"))
        before = nodes.count("members")
        nodes.wait_for("members", plan.nodes, 300)
        took = time.monotonic() - began
        _, lost, twice, mismatched = outcome(network, nodes)
        homes = list(network.path("nodes").iterdir())
        new = sum((home / "ssl/ca.pem").read_text() == both for home in homes)
        yield Row(
            "The authority is replaced in a wave",
            f"an empty CA file (refused), then both authorities, when {100 * before // plan.nodes} % were members",
            f"{plan.nodes} emulated nodes, {new} of the new authority; {len(mismatched)} with a certificate that is not for "
            "their key",
            lost, twice, f"all members after {seconds(took)}", lost == twice == 0 and not mismatched and 0 < new < plan.nodes,
        )


# Sockets.


def herd_and_memory(plan):
    """Members that come all at once, stay, and come again after the broker was killed."""
    with plan.lab() as network:
        broker = network.broker()
        pair = Pair(network)
        empty = broker.memory()
        pair.window()
        time.sleep(3)
        idle = pair.window()
        say(f"{plan.many} members at once; pair {idle}")
        nodes = network.nodes(plan.many, "--members", "--ca", "ca", "--broker", f"localhost:{network.port}", "--starting", "0")
        # Their keys and files are made first.
        nodes.wait_for("started", 1, 600)
        pair.window()
        began = time.monotonic()
        nodes.wait_for("members", plan.many, 300)
        took = time.monotonic() - began
        during = pair.window()
        refused = refusals(network)
        yield Row(
            f"{plan.many} members connect at once", "mutual TLS, subscriptions, startup event, from one process of this machine",
            f"a pair of members that writes every 10 ms, in a process of its own: {idle} before; {during} meanwhile",
            plan.many - nodes.count("members"), None, f"all there after {seconds(took)}; {refused}",
            nodes.count("members") == plan.many and during.lost == 0,
            {"idle": [idle.at(s) for s in (0.5, 0.99, 1.0)], "herd": [during.at(s) for s in (0.5, 0.99, 1.0)]},
        )
        time.sleep(20)
        full = broker.memory()
        each = (full - empty) / plan.many / 1024
        pair.window()
        time.sleep(3)
        calm = pair.window()
        yield Row(
            f"Broker memory with {plan.many} idle members over mutual TLS", f"{plan.many} connections with their subscriptions",
            f"pair: {calm}", None, None, f"{full / 2**20:.0f} MiB, {each:.1f} KiB for each node ({empty / 2**20:.0f} MiB without)",
            each <= 16, {"kib_per_node": each},
        )
        say("the broker is killed and started again")
        pair.window()
        broker.kill()
        wait("all have noticed", lambda: nodes.count("connected") < plan.many / 10, 30)
        began = time.monotonic()
        network.broker()
        wait("the pair is back", lambda: pair.window().latencies, 60, pause=0.2)
        first = time.monotonic() - began
        pair.window()
        nodes.wait_for("members", plan.many, 300)
        took = time.monotonic() - began
        during = pair.window()
        pair.stop()
        report = nodes.end()
        yield Row(
            f"The broker is killed under {plan.many} members", "kill -9, started again: all reconnect by themselves",
            f"a pair that was back after {seconds(first)}: {during} until all were back",
            report["lost"], None, f"all back {seconds(took)} after the start; {refusals(network)}",
            report["lost"] == 0 and during.lost == 0, {"herd": [during.at(s) for s in (0.5, 0.99, 1.0)]},
        )


def refusals(network):
    """What the broker refused, by reason."""
    reasons = {}
    for line in network.page(network.stats, "/choria/prometheus").splitlines():
        if line.startswith("choria_broker_refused{") and not line.endswith(" 0"):
            reasons[line.split('reason="')[1].split('"')[0]] = int(float(line.rpartition(" ")[2]))
    return "refused: " + (", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "nobody")


def half_open(plan):
    with plan.lab() as network:
        broker = network.broker()
        network.provisioner()
        normal = normal_time(network)
        pair = Pair(network)
        pair.window()
        time.sleep(3)
        idle = pair.window()
        say(f"{plan.half_open} half-open sockets; pair {idle}")
        sockets, memory = HalfOpen(network, plan.half_open), broker.memory()
        thread = threading.Thread(target=lambda: asyncio.run(sockets.run()))
        thread.start()
        wait("all are open", lambda: sockets.opened >= plan.half_open, 120)
        time.sleep(2)
        pair.window()
        opened, cpu, began = sockets.opened, broker.cpu(), time.monotonic()
        took = [network.time_of_real_node(f"amid{number}.real") for number in range(3)]
        time.sleep(max(0.0, began + 15 - time.monotonic()))
        during, lasted = pair.window(), time.monotonic() - began
        cpu, grown = (broker.cpu() - cpu) / lasted, (broker.memory() - memory) / 2**20
        renewed = (sockets.opened - opened) / lasted
        sockets.stopping = True
        thread.join()
        pair.stop()
        worst = max(took)
        yield Row(
            f"{plan.half_open} half-open sockets, renewed as they end", "in equal parts: " + "; ".join(HalfOpen.KINDS)
            + f"; {renewed:.0f} new ones a second",
            f"pair of members: {idle} before; {during} meanwhile. 3 real nodes provisioned meanwhile: {seconds(worst)} the "
            f"slowest, {seconds(normal)} normally",
            3 - len(network.members([f"amid{number}.real" for number in range(3)])), None,
            f"broker: {100 * cpu:.0f} % of a core, {grown:+.0f} MiB; {refusals(network)}", during.lost == 0 and worst <= 2 * normal,
            {"idle": [idle.at(s) for s in (0.5, 0.99, 1.0)], "during": [during.at(s) for s in (0.5, 0.99, 1.0)]},
        )


# Memory.


def waiting_memory(plan):
    with plan.lab(helper="defer") as network:
        network.broker()
        provisioner = network.provisioner()
        before = provisioner.memory()
        say(f"{plan.many} nodes wait")
        nodes = network.nodes(plan.many, "--until", "waiting")
        began = time.monotonic()
        nodes.wait_for("waiting", plan.many, 600)
        wait("each was asked about", lambda: network.metric("choria_provisioner_event_discovered") >= plan.many, 120)
        took = time.monotonic() - began
        time.sleep(60)
        waiting = int(network.metric("choria_provisioner_waiting_nodes"))
        memory, peak = provisioner.memory() / 2**20, provisioner.memory("VmHWM") / 2**20
        nodes.end()
        yield Row(
            f"Provisioner memory with {plan.many} waiting nodes", "the helper puts every node off, again and again, for a minute",
            f"{plan.many} emulated nodes, all waiting after {seconds(took)}", None, None,
            f"{memory:.0f} MiB, {peak:.0f} MiB at most ({before / 2**20:.0f} MiB without nodes)", peak * 2**20 <= 100e6,
            {"waiting": waiting},
        )


ALL = {
    "forged": forged_through_the_broker,
    "forged-direct": forged_past_the_broker,
    "forged-flood": forged_without_end,
    "short-lived": short_lived,
    "waves": waves,
    "token": token_expires,
    "authority": authority_changes,
    "half-open": half_open,
    "herd": herd_and_memory,
    "waiting": waiting_memory,
}
