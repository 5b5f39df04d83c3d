"""The life of a broker: it comes back, it says goodbye, it reads its file again, it tells about itself."""

import asyncio
import json
import socket

import nats

from broker import Failure, expect, expect_in
from client import connected, next_data, refused, until

AGAIN = {"allow_reconnect": True, "reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}


async def reconnect(lab):
    """a broker is killed and comes back: clients reconnect, their subscriptions live on, what they kept is sent"""
    with lab.broker() as broker:
        async with connected(broker.url(), **AGAIN) as one, connected(broker.url(), **AGAIN) as two:
            subscription = await two.subscribe("r.*")
            await two.flush()
            broker.kill()
            await until("both know", lambda: one.is_reconnecting and two.is_reconnecting)
            broker.start()
            await until("both are back", lambda: "reconnected" in one.events and "reconnected" in two.events)
            await two.flush()
            await one.publish("r.1", b"again")
            expect("after the restart", await next_data(subscription), b"again")
            expect("exit status after SIGTERM", broker.stop() in (0, 1), True)
            await until("one knows", lambda: one.is_reconnecting)
            await one.publish("r.2", b"kept")
            broker.start()
            # Two may come back later than what one kept, so one says it again until it is heard.
            await until("two is back", lambda: two.events.count("reconnected") == 2)
            await two.flush()
            await one.publish("r.3", b"new")
            last = b""
            while last != b"new":
                last = await next_data(subscription)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def lame_duck(lab):
    """SIGUSR2: clients are told, newcomers are refused, everybody moves to the other broker, the old one ends"""
    slow = 'lame_duck_duration: "30s", lame_duck_grace_period: "300ms"'
    with lab.broker(slow) as old, lab.broker() as new:
        servers = [old.url(), new.url()]
        options = {**AGAIN, "dont_randomize": True}
        async with connected(servers, **options) as one, connected(servers, **options) as two:
            subscription = await one.subscribe("l")
            await one.flush()
            old.lame_duck()
            await until("both are told", lambda: "lame duck" in one.events and "lame duck" in two.events)
            await until("newcomers are refused", lambda: not listens(old.port()))
            await two.publish("l", b"still here")
            expect("within the grace period", await next_data(subscription), b"still here")
            await until("both have moved", lambda: "reconnected" in one.events and "reconnected" in two.events, 20)
            expect("where they are", {nc.connected_url.port for nc in (one, two)}, {new.port()})
            await one.flush()
            await two.publish("l", b"moved")
            expect("at the other broker", await next_data(subscription), b"moved")
            await until("the old broker has ended", lambda: old.child.poll() is not None)
            expect("its exit status", old.child.returncode, 0)


async def reload(lab):
    """SIGHUP: a user that is gone from the file is sent away, a new one comes in, others stay"""
    def users(*names):
        entries = ", ".join(f"{{ user: {name}, password: {name} }}" for name in names)
        return f"http: 127.0.0.1:-1\nauthorization {{ users: [ {entries} ] }}"

    with lab.broker(users("ann", "bob")) as broker:
        url = broker.url()
        async with connected(url, user="ann", password="ann") as ann, connected(url, user="bob", password="bob") as bob:
            subscription = await bob.subscribe("x")
            await bob.flush()
            broker.configure(users("bob", "cleo"))
            broker.reload()
            await until("ann is sent away", lambda: ann.is_closed)
            async with connected(url, user="cleo", password="cleo") as cleo:
                await cleo.publish("x", b"hello")
                expect("bob is there as before", await next_data(subscription), b"hello")
            expect("bob was not disconnected", bob.events, [])
            expect_in("error", "Authorization Violation", await refused(url, user="ann", password="ann"))
            broker.configure("authorization { users: [ { user: } ] }")
            broker.reload()
            async with connected(url, user="cleo", password="cleo") as cleo:
                await cleo.flush()
            expect("a file that cannot be read changes nothing", bob.is_connected, True)


async def monitoring(lab):
    """the pages tell about the connections that are there"""
    with lab.broker("http: 127.0.0.1:-1") as broker:
        async with connected(broker.url(), name="watched") as nc:
            await nc.subscribe("m.>")
            await nc.publish("m.1", b"12345")
            await nc.flush()
            expect("/healthz", broker.page("/healthz"), {"status": "ok"})
            varz = broker.page("/varz")
            names = ("connections", "in_msgs", "in_bytes")
            expect(f"{names} of /varz", [varz[name] for name in names], [1, 1, 5])
            connection = broker.page("/connz?subs=1")["connections"][0]
            expect("name, language, subscriptions of /connz",
                   [connection[k] for k in ("name", "lang", "subscriptions_list")], ["watched", "python3", ["m.>"]])


async def system_account(lab):
    """the system account asks the broker and hears of clients that come and go; others cannot"""
    configuration = """
        accounts { SYS { users: [ { user: sys, password: s } ] }, APP { users: [ { user: ann, password: a } ] } }
        system_account: SYS"""
    with lab.broker(configuration) as broker:
        async with connected(broker.url(), user="sys", password="s") as system:
            events = await system.subscribe("$SYS.ACCOUNT.APP.*")
            await system.flush()
            async with connected(broker.url(), user="ann", password="a", name="ann") as ann:
                connect = await events.next_msg(5)
                expect("subject of the event", connect.subject, "$SYS.ACCOUNT.APP.CONNECT")
                expect("who came", json.loads(connect.data)["client"]["name"], "ann")
                try:
                    await ann.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=0.3)
                    raise Failure("an ordinary account was answered on a subject of the system account")
                except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                    pass
                answer = json.loads((await system.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=5)).data)
                expect("connections of VARZ", answer["data"]["connections"], 2)
            subjects = [(await events.next_msg(5)).subject for _ in range(1)]
            expect("subject of the next event", subjects, ["$SYS.ACCOUNT.APP.DISCONNECT"])


async def slow_consumer(lab):
    """a subscriber that does not read is sent away; a quick one beside it loses nothing"""
    with lab.broker('max_pending: 1MB, max_payload: 512KB, write_deadline: "1s", http: 127.0.0.1:-1') as broker:
        async with connected(broker.url()) as quick, connected(broker.url()) as sender:
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.port(), limit=1024)
            writer.write(b"CONNECT {\"verbose\":false}\r\nSUB flood 1\r\nPING\r\n")
            await reader.readline()
            await reader.readline()
            seen = 0

            async def count(_):
                nonlocal seen
                seen += 1

            await quick.subscribe("flood", cb=count)
            await quick.flush()
            sent = 0
            # One at a time, so that the quick one never has more waiting than is allowed.
            while broker.page("/varz")["slow_consumers"] == 0:
                if sent > 2000:
                    raise Failure("500 MB were sent and nobody is a slow consumer")
                await sender.publish("flood", bytes(256 * 1024))
                sent += 1
                await until("the quick subscriber has it", lambda: seen == sent)
            await until("two connections are left", lambda: broker.page("/varz")["connections"] == 2)
            writer.close()


ALL = [reconnect, lame_duck, reload, monitoring, system_account, slow_consumer]
