"""A broker on the loopback address: its configuration, its process, where it listens, what it says."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.request


class Failure(Exception):
    """Something is not as it must be; the text says what was expected and what came."""


def expect(what, got, wanted):
    if got != wanted:
        raise Failure(f"{what}:\n    expected {wanted!r}\n    got      {got!r}")


def expect_in(what, part, text):
    if part not in text:
        raise Failure(f"{what}:\n    expected something with {part!r}\n    got      {text!r}")


class Broker:
    """The program under test with a configuration file in nats-server's language. It finds its ports itself and
    tells them in its ports file, so nothing is guessed and several runs get along on one machine."""

    def __init__(self, program, directory, name, configuration):
        self.program = program
        self.directory = pathlib.Path(directory) / name
        self.directory.mkdir()
        self.log = self.directory / "log"
        self.file = self.directory / "broker.conf"
        self.ports = {}
        self.child = None
        self.configure(configuration)

    def configure(self, text):
        """Writes the file; a running broker reads it at `reload`."""
        self.file.write_text(f'ports_file_dir: "{self.directory}"\n{text}\n')

    def start(self):
        """Starts it, on the ports of the last start if there was one, and waits until it accepts connections."""
        arguments = [self.program, "-c", self.file, "-a", "127.0.0.1", "-p", str(self.port()) if self.ports else "-1"]
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._read_ports():
            if self.child.poll() is not None:
                raise Failure(f"the broker ended with status {self.child.returncode} instead of starting; {self.said()}")
            if time.monotonic() > deadline:
                raise Failure(f"no ports file in {self.directory} after 20 s; {self.said()}")
            time.sleep(0.01)
        return self

    def _read_ports(self):
        for path in self.directory.glob(f"*_{self.child.pid}.ports"):
            # It may be read while it is written.
            with contextlib.suppress(ValueError):
                self.ports = json.loads(path.read_text())
                return True
        return False

    def url(self, kind="nats", credentials=""):
        """An address of this kind, as the ports file tells it; `credentials` go before the host."""
        if not self.ports.get(kind):
            raise Failure(f"the ports file names no {kind} address: {self.ports!r}")
        scheme, _, place = self.ports[kind][0].partition("://")
        host, _, port = place.rpartition(":")
        host = "127.0.0.1" if host in ("", "0.0.0.0", "[::]", "127.0.0.1") else host
        return f"{scheme}://{credentials}{'@' if credentials else ''}{host}:{port}"

    def port(self):
        return int(self.url().rpartition(":")[2])

    def page(self, path):
        """A monitoring page, as what its JSON says."""
        with urllib.request.urlopen(self.url("monitoring") + path, timeout=10) as answer:
            return json.load(answer)

    def reload(self):
        self.child.send_signal(signal.SIGHUP)

    def lame_duck(self):
        self.child.send_signal(signal.SIGUSR2)

    def kill(self):
        """SIGKILL: nobody is told."""
        self.child.kill()
        self.child.wait()

    def stop(self):
        """SIGTERM; its exit status."""
        if self.child is None:
            return None
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"the broker did not end within 10 s of SIGTERM; {self.said()}") from None

    def said(self):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"the end of its log:\n{text[-2000:]}"


class Lab:
    """What the checks of one run share: the program and a directory that is taken away afterwards."""

    def __init__(self, program, directory):
        self.program = os.path.abspath(program)
        self.directory = pathlib.Path(directory)
        self.count = 0

    @contextlib.contextmanager
    def broker(self, configuration="", start=True):
        """A broker of its own for one check."""
        self.count += 1
        broker = Broker(self.program, self.directory, f"broker-{self.count}", configuration)
        try:
            yield broker.start() if start else broker
        except Failure as failure:
            raise Failure(f"{failure}\n{broker.said()}") from failure
        finally:
            if broker.child and broker.child.poll() is None:
                broker.kill()
