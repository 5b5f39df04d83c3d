"""Peers that speak NATS themselves: forgers, nodes that vanish, half-open sockets, and a pair that measures."""

import asyncio
import contextlib
import json
import multiprocessing
import socket
import ssl
import time
import uuid

import lab as programs

STARTUP = "choria.lifecycle.event.startup.provision_mode_server"


def anonymous():
    """TLS as an unprovisioned node uses it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def with_certificate(network, name):
    """TLS with a certificate that the network's authority has issued."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(network.path(name) / "ca.pem")
    context.load_cert_chain(network.path(name) / f"{name}.pem", network.path(name) / f"{name}-key.pem")
    return context


def event(identity):
    return json.dumps({
        "protocol": "io.choria.lifecycle.v1.startup", "id": str(uuid.uuid4()), "identity": identity,
        "component": "provision_mode_server", "timestamp": int(time.time()), "version": "0.30.2",
    }).encode()


def publish(subject, payload):
    return b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload)


def connect_line(**fields):
    options = {"verbose": False, "pedantic": False, "protocol": 1, "lang": "python", "version": "1", "headers": True,
               "no_responders": True, "tls_required": True, **fields}
    return b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n"


class Peer:
    """One connection."""

    @classmethod
    async def open(cls, port, context, **fields):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        await self.reader.readline()
        await self.writer.start_tls(context)
        self.writer.write(connect_line(**fields))
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 60)
            if line.startswith(b"PONG"):
                return self
            if not line or line.startswith(b"-ERR"):
                raise ConnectionError(line.decode() or "closed")

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def sync(self):
        await self.send(b"PING\r\n")
        while not (await asyncio.wait_for(self.reader.readline(), 60)).startswith(b"PONG"):
            pass

    def vanish(self):
        """Without a goodbye, as a machine does whose power fails."""
        with contextlib.suppress(OSError):
            self.writer.transport.abort()


async def vanishing_nodes(network, count, lives=0.0, at_once=40, names="absent{}.faults", per_second=None):
    """Holders of the token come under many names, announce themselves, live a while and vanish. Gives how many got in."""
    token = network.path("provisioning.jwt").read_text().strip()
    context, slots, came = anonymous(), asyncio.Semaphore(at_once), 0
    began = time.monotonic()

    async def one(number):
        nonlocal came
        name = names.format(number)
        async with slots:
            peer = await Peer.open(network.port, context, name=name, auth_token=token)
            await peer.send(b"SUB provisioning.node.%s 1\r\n" % name.encode() + publish(STARTUP, event(name)))
            await peer.sync()
            came += 1
        await asyncio.sleep(lives)
        peer.vanish()

    tasks = []
    for number in range(count):
        if per_second:
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return came


async def forged_events(network, count, names="forged{}.faults", seconds=0.0):
    """Startup events of nodes that do not exist, by somebody with the rights of a provisioner; spread over some time."""
    context = with_certificate(network, "provisioner.mcollective")
    peer = await Peer.open(network.port, context, name="forger", user="provisioner", **{"pass": programs.PASSWORD})
    began = time.monotonic()
    for number in range(count):
        peer.writer.write(publish(STARTUP, event(names.format(number))))
        if seconds and number % 10 == 0:
            await peer.writer.drain()
            await asyncio.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
    await peer.sync()
    took = time.monotonic() - began
    peer.vanish()
    return took


def client_hello():
    session = anonymous().wrap_bio(ssl.MemoryBIO(), out := ssl.MemoryBIO(), server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


class HalfOpen:
    """Sockets that begin and never finish, renewed whenever the broker ends one."""

    KINDS = ("silent", "one byte a second of TLS", "hello and nothing more", "TLS and no CONNECT", "CONNECT byte by byte")

    def __init__(self, network, count):
        self.network, self.count = network, count
        self.opened = self.ended = 0
        self.stopping = False

    async def run(self):
        hello, context = client_hello(), anonymous()
        await asyncio.gather(*(self._keep(self.KINDS[n % len(self.KINDS)], hello, context) for n in range(self.count)))

    async def _keep(self, kind, hello, context):
        while not self.stopping:
            writer = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.network.port)
                self.opened += 1
                await reader.readline()
                await self._begin(kind, reader, writer, hello, context)
                self.ended += 1
            except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
                self.ended += 1
                await asyncio.sleep(0.2)
            finally:
                if writer:
                    writer.transport.abort()

    async def _begin(self, kind, reader, writer, hello, context):
        drip = b""
        if kind == "one byte a second of TLS":
            drip = hello
        elif kind == "hello and nothing more":
            writer.write(hello)
        elif kind in ("TLS and no CONNECT", "CONNECT byte by byte"):
            await writer.start_tls(context, ssl_handshake_timeout=60)
            drip = connect_line(name="loris") if kind == "CONNECT byte by byte" else b""
        end = asyncio.create_task(reader.read())
        for at in range(len(drip)):
            if end.done() or self.stopping:
                break
            writer.write(drip[at:at + 1])
            await asyncio.wait([end], timeout=1)
        while not end.done() and not self.stopping:
            await asyncio.wait([end], timeout=0.5)
        end.cancel()


class Pair:
    """Two members that write to each other every ten milliseconds, in a process of their own."""

    PERIOD = 0.01

    def __init__(self, network):
        name = programs.CLIENT
        self.pipe, other = multiprocessing.Pipe()
        paths = [str(network.path(name) / file) for file in ("ca.pem", f"{name}.pem", f"{name}-key.pem")]
        self.process = multiprocessing.Process(target=_talk, args=(other, network.port, paths), daemon=True)
        self.process.start()
        assert self.pipe.poll(30) and self.pipe.recv() == "ready"

    def window(self):
        """What was measured since the last window."""
        self.pipe.send("window")
        return Window(*self.pipe.recv())

    def stop(self):
        self.pipe.send("stop")
        self.process.join(10)


class Window:
    """Latencies of one window in milliseconds, and how often the connection was lost."""

    def __init__(self, latencies, lost):
        self.latencies, self.lost = sorted(latencies), lost

    def at(self, share):
        if not self.latencies:
            return float("nan")
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    def __str__(self):
        lost = f", connection lost {self.lost} times" if self.lost else ""
        return f"p50 {self.at(0.5):.1f}, p99 {self.at(0.99):.1f}, max {self.at(1.0):.1f} ms of {len(self.latencies)}{lost}"


def _dial(port, context, name):
    stream = socket.create_connection(("127.0.0.1", port), 30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not stream.recv(65536).endswith(b"\n"):
        pass
    secure = context.wrap_socket(stream)
    secure.sendall(connect_line(name=name))
    text = b""
    while b"PONG" not in text:
        more = secure.recv(65536)
        if not more:
            raise ConnectionError(text.decode())
        text += more
    return secure


def _talk(pipe, port, paths):
    ca, certificate, key = paths
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    latencies, lost, ends, number, said = [], 0, None, 0, False
    while True:
        if pipe.poll():
            if pipe.recv() == "stop":
                return
            pipe.send((latencies, lost))
            latencies, lost = [], 0
        began = time.monotonic()
        try:
            if ends is None:
                ends = [_dial(port, context, name) for name in ("pair-from", "pair-to")]
                ends[1].sendall(b"SUB faults.pair 1\r\nPING\r\n")
                _read_until(ends, b"PONG\r\n")
                if not said:
                    pipe.send("ready")
                    said = True
            number += 1
            began = time.monotonic()
            ends[0].sendall(publish("faults.pair", b"%08d" % number))
            _read_until(ends, b"%08d\r\n" % number)
            latencies.append((time.monotonic() - began) * 1e3)
        except (OSError, ConnectionError):
            lost += ends is not None
            ends = None
            time.sleep(0.05)
        time.sleep(max(0.0, began + Pair.PERIOD - time.monotonic()))


def _read_until(ends, end):
    """Reads the receiver until this text has come; both answer PINGs."""
    text = b""
    while end not in text:
        more = ends[1].recv(65536)
        if not more:
            raise ConnectionError("closed")
        if b"PING\r\n" in more:
            ends[1].sendall(b"PONG\r\n")
        text += more
    ends[0].setblocking(False)
    try:
        if b"PING\r\n" in ends[0].recv(65536):
            ends[0].setblocking(True)
            ends[0].sendall(b"PONG\r\n")
    except (ssl.SSLWantReadError, BlockingIOError):
        pass
    finally:
        ends[0].settimeout(30)
