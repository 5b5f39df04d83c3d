"""Messages between clients of an open broker."""

import asyncio

import nats

from broker import Failure, expect, expect_in
from client import connected, next_data, nothing_more, serve, until


async def connect(lab):
    """INFO says what the client needs, a round trip works"""
    with lab.broker("server_name: clients") as broker:
        async with connected(broker.url(), name="first") as nc:
            info = nc._server_info
            expect("server_name of INFO", info["server_name"], "clients")
            expect("max_payload of INFO", nc.max_payload, 1048576)
            expect("headers of INFO", info["headers"], True)
            expect("proto of INFO", info["proto"], 1)
            expect("port of INFO", info["port"], broker.port())
            expect("client_ip of INFO", info["client_ip"], "127.0.0.1")
            await nc.flush()
        expect("exit status after SIGTERM", broker.stop() in (0, 1), True)


async def publish(lab):
    """payloads of all sizes arrive whole and in order, at every subscriber, and not at others"""
    with lab.broker() as broker:
        async with connected(broker.url()) as one, connected(broker.url(), no_echo=True) as two:
            mine, other = await one.subscribe("size.a"), await one.subscribe("size.b")
            theirs, echo = await two.subscribe("size.a"), await two.subscribe("echo")
            await one.flush()
            await two.flush()
            sizes = [0, 1, 2, 63, 64, 1023, 4096, 65535, 65536, 1048576]
            for size in sizes:
                await one.publish("size.a", bytes([size % 251]) * size)
            for size in sizes:
                for subscription in (mine, theirs):
                    got = await next_data(subscription)
                    expect(f"payload of {size} bytes is whole", got == bytes([size % 251]) * size, True)
            await two.publish("echo", b"to myself")
            await nothing_more(two, echo)
            await nothing_more(one, other)
            many = await two.subscribe("many")
            await two.flush()
            for number in range(20_000):
                await one.publish("many", b"%d" % number)
            for number in range(20_000):
                expect("number of the message", await next_data(many), b"%d" % number)


async def wildcards(lab):
    """`*` stands for one token, `>` for the rest; a subject matches where it should and nowhere else"""
    patterns = ["a.b.c", "a.*.c", "*.*.*", "a.>", ">", "a.b", "*", "a.*.d", "b.>", "a.b.c.>"]
    matches = {
        "a.b.c": ["a.b.c", "a.*.c", "*.*.*", "a.>", ">"],
        "a.b": ["a.>", ">", "a.b"],
        "a": [">", "*"],
        "a.x.d": ["*.*.*", "a.>", ">", "a.*.d"],
        "b.c": [">", "b.>"],
        "a.b.c.d": ["a.>", ">", "a.b.c.>"],
        "A.b.c": ["*.*.*", ">"],
    }
    with lab.broker() as broker:
        async with connected(broker.url()) as nc:
            subscriptions = {pattern: await nc.subscribe(pattern) for pattern in patterns}
            for subject, wanted in matches.items():
                await nc.publish(subject, b"x")
                await nc.flush()
                got = [pattern for pattern, subscription in subscriptions.items() if subscription.pending_msgs]
                expect(f"patterns that {subject} matches", got, [pattern for pattern in patterns if pattern in wanted])
                for pattern in got:
                    expect("subject of the message", (await subscriptions[pattern].next_msg(1)).subject, subject)


async def queue_groups(lab):
    """each group gets every message once, its members share them; plain subscribers get all"""
    with lab.broker() as broker:
        async with connected(broker.url()) as one, connected(broker.url()) as two:
            members = [await nc.subscribe("jobs.*", queue="workers") for nc in (one, two, two)]
            alone = await one.subscribe("jobs.>", queue="audit")
            plain = await two.subscribe("jobs.1")
            await one.flush()
            await two.flush()
            for _ in range(900):
                await one.publish("jobs.1", b"x")
            everybody = (one, two)
            for nc in everybody:
                await nc.flush()
            expect("messages of the plain subscriber", plain.pending_msgs, 900)
            expect("messages of a group with one member", alone.pending_msgs, 900)
            shares = [member.pending_msgs for member in members]
            expect("messages of the group of three", sum(shares), 900)
            if min(shares) < 100:
                raise Failure(f"members of a group do not share fairly: {shares}")


async def requests(lab):
    """500 requests at once get their own answers; so does the old way with a subscription for each"""
    with lab.broker() as broker:
        async with connected(broker.url()) as client, connected(broker.url()) as server:
            await serve(server, "double", lambda message: message.data * 2, queue="doublers")
            await serve(server, "double", lambda message: message.data * 2, queue="doublers")
            answers = await asyncio.gather(*(client.request("double", b"%d" % n, timeout=10) for n in range(500)))
            expect("answers", [a.data for a in answers], [b"%d%d" % (n, n) for n in range(500)])
            old = await client.request("double", b"ab", timeout=5, old_style=True)
            expect("answer to a request of the old style", old.data, b"abab")


async def no_responders(lab):
    """a request that nobody hears ends at once; one that is heard and not answered ends with its time"""
    with lab.broker() as broker:
        async with connected(broker.url()) as nc:
            try:
                await nc.request("nobody.home", b"", timeout=10)
                raise Failure("a request without a responder was answered")
            except nats.errors.NoRespondersError:
                pass
            inbox = await nc.subscribe("answers.here")
            await nc.publish("nobody.home", b"", reply="answers.here")
            status = await inbox.next_msg(5)
            got = [status.headers.get(name) for name in ("Status", "Nats-Subject")]
            expect("Status and Nats-Subject of what came instead", got, ["503", "nobody.home"])
            silent = await nc.subscribe("silent")
            try:
                await nc.request("silent", b"", timeout=0.2)
                raise Failure("a request that nobody answers was answered")
            except nats.errors.NoRespondersError:
                raise Failure("a request that was heard ended with no responders") from None
            except nats.errors.TimeoutError:
                pass
            expect("requests that were heard", silent.pending_msgs, 1)


async def headers(lab):
    """headers arrive as they were sent, with payload and without, also in requests and answers"""
    sent = {"Subject-Of": "a b", "X-Empty": "", "X-Long": "v" * 3000, "X-Colon": "a:b: c"}
    with lab.broker() as broker:
        async with connected(broker.url()) as one, connected(broker.url()) as two:
            subscription = await two.subscribe("h")
            await two.flush()
            for payload in (b"", b"body", b"\r\nNATS/1.0\r\n\r\n"):
                await one.publish("h", payload, headers=sent)
                message = await subscription.next_msg(5)
                expect("headers", message.headers, sent)
                expect("payload", message.data, payload)

            async def reply(message):
                await two.publish(message.reply, message.headers["X-Number"].encode(), headers={"X-Answer": "yes"})

            await two.subscribe("h.ask", cb=reply)
            await two.flush()
            answer = await one.request("h.ask", b"", timeout=5, headers={"X-Number": "7"})
            expect("answer and its headers", (answer.data, answer.headers), (b"7", {"X-Answer": "yes"}))


async def unsubscribe(lab):
    """a subscription ends at once, or after a number of messages, and nothing comes after it"""
    with lab.broker() as broker:
        async with connected(broker.url()) as nc:
            some, gone = await nc.subscribe("u"), await nc.subscribe("u")
            witness = await nc.subscribe("u")
            await some.unsubscribe(limit=3)
            await gone.unsubscribe()
            for number in range(5):
                await nc.publish("u", b"%d" % number)
            for number in range(5):
                expect("witness", await next_data(witness), b"%d" % number)
            got = [await next_data(some) for _ in range(3)]
            expect("what the limited subscription got", got, [b"0", b"1", b"2"])
            try:
                answer = await nc.request("u", b"", timeout=0.1)
                raise Failure(f"somebody answered on a subject where only the witness listens: {answer.data!r}")
            except nats.errors.NoRespondersError:
                raise Failure("the witness is no longer subscribed") from None
            except nats.errors.TimeoutError:
                pass


async def drain(lab):
    """drain works off what has arrived, then leaves; a drained responder loses no request"""
    with lab.broker("http: 127.0.0.1:-1") as broker:
        async with connected(broker.url()) as one, connected(broker.url()) as two:
            seen = []

            async def slowly(message):
                await asyncio.sleep(0)
                seen.append(message.data)

            await two.subscribe("d", cb=slowly)
            await two.flush()
            for number in range(1000):
                await one.publish("d", b"%d" % number)
            await one.flush()
            await two.drain()
            await until("the drained connection is closed", lambda: two.is_closed)
            expect("messages of the drained subscriber", seen, [b"%d" % number for number in range(1000)])
            await until("the broker counts one connection", lambda: broker.page("/varz")["connections"] == 1)
            try:
                await one.request("d", b"", timeout=5)
                raise Failure("the drained subscriber answered")
            except nats.errors.NoRespondersError:
                pass


async def max_payload(lab):
    """a payload larger than max_payload is refused by the client, and by the broker with the reason"""
    with lab.broker("max_payload: 1024") as broker:
        async with connected(broker.url()) as honest, connected(broker.url()) as liar:
            subscription = await honest.subscribe("p")
            await honest.flush()
            expect("max_payload of INFO", honest.max_payload, 1024)
            try:
                await honest.publish("p", b"x" * 1025)
                raise Failure("the client published more than max_payload")
            except nats.errors.MaxPayloadError:
                pass
            await honest.publish("p", b"x" * 1024)
            expect("length of the largest payload", len(await next_data(subscription)), 1024)
            liar._max_payload = 1 << 20
            await liar.publish("p", b"x" * 1025)
            await until("the connection is closed", lambda: liar.is_closed)
            expect_in("the error", "maximum payload violation", str(liar.last_error).lower())
            await nothing_more(honest, subscription)


ALL = [
    connect, publish, wildcards, queue_groups, requests, no_responders, headers, unsubscribe, drain, max_payload,
]
