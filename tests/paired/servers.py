"""Servers to load: ours and nats-server, which are started with the same flags."""

import contextlib
import pathlib
import socket
import subprocess
import time


class Program:
    """A program that takes nats-server's flags."""

    def __init__(self, path):
        self.path = path

    @contextlib.contextmanager
    def running(self, pki):
        """One process on a free port; ends with the block. Yields (url, pid)."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        tls = pki.flags() if pki else []
        process = subprocess.Popen([self.path, "-a", "127.0.0.1", "-p", str(port), *tls],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self._wait(process, port)
            yield f"{'tls' if pki else 'nats'}://127.0.0.1:{port}", process.pid
        finally:
            process.kill()
            process.communicate()

    def _wait(self, process, port):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        process.kill()
        raise SystemExit(f"{self.path} does not listen on port {port}: {process.communicate()[1].strip()[-500:]}")


class Pki:
    """An authority and a certificate for 127.0.0.1."""

    def __init__(self, directory: pathlib.Path):
        self.ca, self.cert, self.key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        names = directory / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        request, ca_key = directory / "request.pem", directory / "ca-key.pem"
        self._openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", self.ca, "-days", "2", "-subj", "/CN=test authority")
        self._openssl("req", *curve, "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial",
                      "-days", "2", "-extfile", names, "-out", self.cert)

    def flags(self):
        return ["--tls", "--tlscert", str(self.cert), "--tlskey", str(self.key)]

    def _openssl(self, *args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
