"""A network on the loopback address made of real programs: its files, its processes, what they say and what they use."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request

SECRET = "s3cret"
PASSWORD = "hunter2"
CLIENT = "tester.mcollective"


def say(text):
    """Progress, for people."""
    os.write(2, f"{time.strftime('%H:%M:%S')} {text}\n".encode())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, condition, seconds=60.0, pause=0.01):
    """Looks until it is true; gives how long that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
    return time.monotonic() - began


class Process:
    """A program in a group of its own; it ends with us."""

    def __init__(self, name, arguments, directory, log, env=None, follow=False):
        self.name = name
        self.log = directory / log
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CHORIA_", "MCOLLECTIVE_", "INSECURE_"))}
        output = open(self.log, "ab")
        self.child = subprocess.Popen(
            [str(a) for a in arguments], cwd=directory, env={**clean, **(env or {}), "CHORIA_EXIT_WITH_STDIN": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE if follow else output, stderr=output, start_new_session=True,
        )
        output.close()

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def kill(self):
        """SIGKILL to the process alone, as an out-of-memory killer does it."""
        self.child.kill()
        self.child.wait()

    def stop(self):
        if self.alive():
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(8)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def says(self, text):
        return text in self.log.read_text(errors="replace")

    def memory(self, key="VmRSS"):
        """Bytes."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu(self):
        """Seconds used so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self):
        """Process ids of its children."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                    if int(fields[1]) == self.pid:
                        found.append(int(entry.name))
        return found


class Nodes(Process):
    """`choria emulate`: many nodes; says what they are while it runs, and reports at the end."""

    def __init__(self, *arguments):
        super().__init__(*arguments, follow=True)
        self.counts = {}
        self.report = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            value = json.loads(line)
            if "samples" in value or "phases" in value:
                self.report = value
            else:
                self.counts = value

    def count(self, key):
        return self.counts.get(key, 0)

    def wait_for(self, key, number, seconds=300.0):
        def condition():
            if not self.alive():
                raise RuntimeError(f"the nodes ended: {self.log.read_text(errors='replace')[-2000:]}")
            return self.count(key) >= number

        return wait(f"{number} nodes {key}, {self.counts}", condition, seconds)

    def end(self):
        """Ends all nodes and gives the report."""
        self.child.terminate()
        self.child.wait(60)
        self.reader.join(30)
        return self.report


class Lab:
    """Files of a network, and its programs. Everything ends with it."""

    def __init__(self, program, helper="builtin", settings="", statistics=True):
        self.program = str(pathlib.Path(program).resolve())
        memory = pathlib.Path("/dev/shm")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="choria-faults-", dir=memory if memory.is_dir() else None))
        self.port, self.stats, self.monitor = free_port(), free_port(), free_port()
        self.running = []
        self.settings = settings
        self._authority()
        self.token("1d")
        self._broker_config()
        self._provisioner_config(helper)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name):
        return self.directory / name

    def run(self, *arguments, **more):
        """A command of the program that ends."""
        return subprocess.run(
            [self.program, *map(str, arguments)], cwd=self.directory, check=True, capture_output=True, text=True, **more
        ).stdout

    def _authority(self):
        self.run("ca", "init", "ca")
        self.run("ca", "issue", "ca", "broker.example.net", "--dns", "localhost", "--ip", "127.0.0.1", "--out", "broker")
        for name in ("provisioner.mcollective", CLIENT):
            self.run("ca", "issue", "ca", name, "--out", name)
        self.run("jwt", "keys", "token.seed", "token.public")

    def token(self, validity):
        """Writes a provisioning token, exchanging the file at once."""
        self.run("jwt", "provisioning", "next.jwt", "token.seed", "--token", SECRET, "--urls", f"localhost:{self.port}",
                 "--default", "--validity", validity, "--force")
        os.replace(self.path("next.jwt"), self.path("provisioning.jwt"))

    def _files(self, directory, name):
        return (
            f"plugin.security.provider = file\nplugin.security.file.certificate = {self.path(directory)}/{name}.pem\n"
            f"plugin.security.file.key = {self.path(directory)}/{name}-key.pem\n"
            f"plugin.security.file.ca = {self.path(directory)}/ca.pem\n"
        )

    def _broker_config(self):
        self.path("broker.conf").write_text(
            "identity = broker.example.net\nlogfile = stderr\nplugin.choria.broker_network = yes\n"
            "plugin.choria.network.listen_address = 127.0.0.1\n"
            f"plugin.choria.network.client_port = {self.port}\nplugin.choria.stats_port = {self.stats}\n"
            f"plugin.choria.network.provisioning.signer_cert = {self.path('token.public')}\n"
            f"plugin.choria.network.provisioning.client_password = {PASSWORD}\n"
            + self._files("broker", "broker.example.net")
        )

    def node_settings(self, ssl_directory):
        return {
            "plugin.choria.server.provision": "false",
            "plugin.choria.middleware_hosts": f"localhost:{self.port}",
            "plugin.choria.use_srv": "false",
            "plugin.security.provider": "file",
            "plugin.security.file.certificate": f"{ssl_directory}/certificate.pem",
            "plugin.security.file.key": f"{ssl_directory}/private.pem",
            "plugin.security.file.ca": f"{ssl_directory}/ca.pem",
        }

    def _provisioner_config(self, helper):
        self.path("provisioner.conf").write_text(
            "identity = provisioner.mcollective\n"
            f"plugin.choria.middleware_hosts = localhost:{self.port}\nplugin.choria.use_srv = false\n"
            + self._files("provisioner.mcollective", "provisioner.mcollective")
        )
        lines = {"builtin": self._builtin, "program": self._program, "defer": self._defer}[helper]()
        self.path("provisioner.yaml").write_text(
            f"interval: 1m\nloglevel: info\nlogfile: stderr\ntoken: {SECRET}\nmonitor_port: {self.monitor}\n"
            f"monitor_address: 127.0.0.1\ncontrol_socket: {self.path('control.sock')}\nbroker_provisioning_password: {PASSWORD}\n"
            f"jwt_verify_cert: {self.path('token.public')}\nfeatures: {{jwt: true, pki: true}}\n{lines}{self.settings}"
        )

    def _builtin(self):
        rule = {"identity": "*", "configuration": {"plugin.choria.middleware_hosts": f"localhost:{self.port}",
                                                   "plugin.choria.use_srv": "false"}}
        # JSON is YAML.
        self.path("rules.yaml").write_text(json.dumps({"rules": [rule]}))
        return f"helper_mode: builtin\nrules: {self.path('rules.yaml')}\nca_directory: {self.path('ca')}\n"

    def _defer(self):
        self.path("rules.yaml").write_text(json.dumps({"rules": [{"identity": "*", "defer": "not yet"}]}))
        return f"helper_mode: builtin\nrules: {self.path('rules.yaml')}\nca_directory: {self.path('ca')}\n"

    def _program(self):
        """Two long-lived processes that have certificates signed by one process each: slow, and easy to kill."""
        helper = self.path("helper.py")
        settings = json.dumps(self.node_settings("SSL"))
        helper.write_text(
            "import json, subprocess, sys\n"
            f"settings = '''{settings}'''\n"
            f"ca = open('{self.path('ca')}/ca.pem').read()\n"
            "for line in sys.stdin:\n"
            "    node = json.loads(line)\n"
            f"    signed = subprocess.run(['{self.program}', 'ca', 'sign', '{self.path('ca')}', '-', '--identity', node['identity']],\n"
            "        input=node['csr']['csr'], capture_output=True, text=True)\n"
            "    answer = {'identity': node['identity'], 'certificate': signed.stdout, 'ca': ca,\n"
            "        'configuration': json.loads(settings.replace('SSL', node['csr']['ssldir']))}\n"
            "    if signed.returncode:\n"
            "        answer = {'identity': node['identity'], 'defer': True, 'msg': signed.stderr}\n"
            "    print(json.dumps(answer), flush=True)\n"
        )
        return f"helper: python3 -u {helper}\nhelper_mode: persistent\nhelper_processes: 2\n"

    # Programs.

    def _start(self, process):
        self.running.append(process)
        return process

    def broker(self):
        broker = self._start(Process("broker", [self.program, "broker", "run", "--config", "broker.conf"],
                                     self.directory, "broker.log"))
        wait("the broker listens", lambda: self._listens(broker, self.port))
        return broker

    @staticmethod
    def _listens(process, port):
        if not process.alive():
            raise RuntimeError(process.log.read_text(errors="replace")[-2000:])
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def provisioner(self, connected=True):
        arguments = [self.program, "provisioner", "run", "--config", "provisioner.yaml", "--choria-config", "provisioner.conf"]
        process = self._start(Process("provisioner", arguments, self.directory, "provisioner.log",
                                      {"MCOLLECTIVE_CERTNAME": "provisioner.mcollective"}))
        if connected:
            wait("the provisioner is connected",
                 lambda: process.alive() and self.metric("choria_connector_initial_connect_time_count") >= 1)
        return process

    def node(self, identity):
        """A real node in a process of its own; what is on its disk stays."""
        home = self.path("real") / identity
        home.mkdir(parents=True, exist_ok=True)
        config = home / "server.conf"
        if not config.exists():
            config.write_text(f"identity = {identity}\n")
        return self._start(Process(identity, [self.program, "server", "run", "--config", config, "--provisioning-jwt",
                                              self.path("provisioning.jwt")], home, "server.log"))

    def nodes(self, count, *more, names="node{}.faults"):
        arguments = [self.program, "emulate", "--nodes", count, "--dir", "nodes", "--names", names, "--json", "--samples",
                     "--follow", *more]
        if "--members" not in more:
            arguments += ["--provisioning-jwt", "provisioning.jwt"]
        return self._start(Nodes("nodes", arguments, self.directory, "nodes.log"))

    # What they say.

    def page(self, port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def metric(self, name, label="", port=None):
        """Sum of a metric's values whose labels hold a text; of the provisioner unless a port is given."""
        total = 0.0
        path = "/choria/prometheus" if port == self.stats else "/metrics"
        for line in self.page(port or self.monitor, path).splitlines():
            if line.startswith(name) and line[len(name):len(name) + 1] in ("{", " ") and label in line:
                total += float(line.rpartition(" ")[2])
        return total

    def members(self, identities):
        """Which of the real nodes hold what members hold."""
        return [i for i in identities if "plugin.security.file.certificate" in (self.path("real") / i / "server.conf").read_text()]

    def came_home(self, identity):
        log = self.path("real") / identity / "server.log"
        return log.exists() and log.read_text(errors="replace").count("connected to") >= 2

    def time_of_real_node(self, identity):
        """From the start of a real node to its return as a member, in seconds."""
        began = time.monotonic()
        self.node(identity)
        wait(f"{identity} is a member", lambda: self.came_home(identity), 400)
        return time.monotonic() - began

    def mismatched(self, directory):
        """Nodes below a directory whose certificate is not for their key, or that have none."""
        bad = []
        for home in sorted(self.path(directory).iterdir()):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(home / "ssl/certificate.pem", home / "ssl/private.pem")
            except (OSError, ssl.SSLError):
                bad.append(home.name)
        return bad
