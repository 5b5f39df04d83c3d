"""TLS and WebSocket."""

import asyncio

from authority import Authority
from broker import Failure, expect, expect_in
from client import connected, next_data, refused, serve


def tls(authority, more=""):
    certificate, key = authority.issue("broker")
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority.file}", {more} }}'


async def talk(one, two, what):
    """Messages, large ones too, both ways between two connections."""
    subscription = await two.subscribe("talk")
    await serve(two, "talk.ask", lambda message: message.data[::-1])
    for size in (1, 1000, 100_000, 1_000_000):
        await one.publish("talk", b"t" * size)
        got = await next_data(subscription)
        expect(f"{what}: {size} bytes are whole", got == b"t" * size, True)
    answers = await asyncio.gather(*(one.request("talk.ask", b"%03d" % n, timeout=5) for n in range(100)))
    expect(f"{what}: answers", [a.data for a in answers], [(b"%03d" % n)[::-1] for n in range(100)])


async def tls_(lab):
    """TLS after INFO; a foreign authority is refused by the client, plain text by the broker"""
    ours, foreign = Authority(lab.directory, "tls"), Authority(lab.directory, "tls-foreign")
    with lab.broker(tls(ours)) as broker:
        context = ours.client()
        async with connected(broker.url(), tls=context) as one, connected(broker.url(), tls=context) as two:
            await talk(one, two, "TLS")
            expect("tls_required of INFO", one._server_info.get("tls_required"), True)
        expect_in("error", "certificate verify failed", (await refused(broker.url(), tls=foreign.client())).lower())
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port())
        await reader.readline()
        writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
        got = await asyncio.wait_for(reader.read(4096), 10)
        writer.close()
        if b"+OK" in got or b"PONG" in got:
            raise Failure(f"plain text was answered where TLS is required: {got!r}")


async def client_certificate(lab):
    """with `verify` a client needs a certificate of the authority"""
    ours, foreign = Authority(lab.directory, "mtls"), Authority(lab.directory, "mtls-foreign")
    with lab.broker(tls(ours, "verify: true")) as broker:
        context = ours.client("ann")
        async with connected(broker.url(), tls=context) as one, connected(broker.url(), tls=context) as two:
            await talk(one, two, "TLS with client certificates")
        await refused(broker.url(), tls=ours.client())
        stranger = ours.client()
        stranger.load_cert_chain(*map(str, foreign.issue("ann")))
        await refused(broker.url(), tls=stranger)


async def handshake_first(lab):
    """TLS before INFO"""
    ours = Authority(lab.directory, "first")
    with lab.broker(tls(ours, "handshake_first: true")) as broker:
        context = ours.client()
        options = {"tls": context, "tls_hostname": "127.0.0.1", "tls_handshake_first": True}
        async with connected(broker.url(), **options) as one, connected(broker.url(), **options) as two:
            await talk(one, two, "TLS first")


async def websocket(lab):
    """WebSocket beside plain connections, with compression on"""
    with lab.broker("websocket { host: 127.0.0.1, port: -1, no_tls: true, compression: true }") as broker:
        url = broker.url("websocket")
        async with connected(url) as one, connected(url) as two, connected(broker.url()) as plain:
            await talk(one, two, "WebSocket to WebSocket")
            await talk(one, plain, "WebSocket to plain")
        async with connected(url) as one, connected(broker.url()) as plain:
            await talk(plain, one, "plain to WebSocket")


async def websocket_tls(lab):
    """WebSocket within TLS, with a user and a password"""
    ours = Authority(lab.directory, "wss")
    certificate, key = ours.issue("broker")
    configuration = f"""
        authorization {{ user: ann, password: a }}
        websocket {{ host: 127.0.0.1, port: -1, tls {{ cert_file: "{certificate}", key_file: "{key}" }} }}"""
    with lab.broker(configuration) as broker:
        url, context = broker.url("websocket"), ours.client()
        options = {"tls": context, "user": "ann", "password": "a"}
        async with connected(url, **options) as one, connected(url, **options) as two:
            await talk(one, two, "WebSocket within TLS")
        expect_in("error", "Authorization Violation", await refused(url, tls=context, user="ann", password="b"))


ALL = [tls_, client_certificate, handshake_first, websocket, websocket_tls]
