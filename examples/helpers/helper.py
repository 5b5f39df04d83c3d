#!/usr/bin/env python3
"""A provisioning helper in Python: signs certificate requests with an authority in a directory and hands out configurations.

It reads one JSON document per line and answers with one per line until its input ends, so it serves `helper_mode: process`
(one process for each node) and `helper_mode: persistent` (a few that stay) alike. It repeats `identity` in every answer,
which lets the provisioner have several requests under way in one process.

    helper: /usr/bin/python3 helper.py --ca /etc/choria/ca --broker broker.example.net:4222
    helper_mode: persistent

`--ca` is a directory with `ca.pem` and `ca-key.pem`, as `choria ca init` makes it. Signing needs the Python package
`cryptography`; without it the program `openssl` is started for each request, which takes a hundred times as long.

Everything that is decided about a node is decided in `answer`: change it to suit you.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    x509 = None

VALIDITY = datetime.timedelta(days=365)
# For nodes whose clock is a little behind.
BACKDATE = datetime.timedelta(minutes=5)


class Refused(Exception):
    """The node is put off, with this reason."""


class Library:
    """Signs with the package `cryptography`."""

    def __init__(self, directory):
        with open(os.path.join(directory, "ca.pem"), "rb") as file:
            self.pem = file.read().decode()
        with open(os.path.join(directory, "ca-key.pem"), "rb") as file:
            self.key = serialization.load_pem_private_key(file.read(), password=None)
        self.ca = x509.load_pem_x509_certificate(self.pem.encode())
        self.hash = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        self.constraints = x509.BasicConstraints(ca=False, path_length=None)
        self.usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])

    def sign(self, csr_pem, identity):
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        names = [name.value for name in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if names != [identity]:
            raise Refused(f"the certificate request is for {names}, not for {identity}")
        # Whether it is signed with its key was verified before it came here; the check is a third of the time of an answer.
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)]))
            .issuer_name(self.ca.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(now + VALIDITY, self.ca.not_valid_after_utc))
            .add_extension(self.constraints, critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
            .add_extension(self.usages, critical=False)
            .sign(self.key, self.hash)
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Program:
    """Signs with the program `openssl`, started anew for each request."""

    def __init__(self, directory):
        self.directory = directory
        with open(os.path.join(directory, "ca.pem"), encoding="utf-8") as file:
            self.pem = file.read()
        try:
            subprocess.run(["openssl", "version"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"helper.py: signing needs the Python package cryptography or the program openssl: {error}")

    def sign(self, csr_pem, identity):
        with tempfile.TemporaryDirectory() as work:
            request, extensions = os.path.join(work, "request.pem"), os.path.join(work, "extensions")
            with open(request, "w", encoding="utf-8") as file:
                file.write(csr_pem)
            with open(extensions, "w", encoding="utf-8") as file:
                file.write(
                    "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth,serverAuth\n"
                    f"subjectAltName=DNS:{identity}\n"
                )
            subject = self.run("req", "-in", request, "-noout", "-verify", "-subject", "-nameopt", "RFC2253")
            if f"subject=CN={identity}" not in subject.splitlines():
                raise Refused(f"the certificate request is not for {identity}: {subject.strip()}")
            return self.run(
                "x509", "-req", "-in", request, "-days", str(VALIDITY.days), "-extfile", extensions,
                "-CA", os.path.join(self.directory, "ca.pem"), "-CAkey", os.path.join(self.directory, "ca-key.pem"),
                "-set_serial", str(int.from_bytes(os.urandom(16), "big") >> 1),
            )  # fmt: skip

    @staticmethod
    def run(*arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(f"openssl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


def answer(node, signer, options):
    """Everything there is to decide about one node."""
    identity, csr = node["identity"], node.get("csr")
    if not csr:
        raise Refused("the node sent no certificate request")
    ssldir = csr["ssldir"]
    policy = "policy default deny\n" + "".join(f"allow\tchoria={caller}\t*\t*\t*\n" for caller in options.allow)
    return {
        "identity": identity,
        "certificate": signer.sign(csr["csr"], identity),
        "ca": signer.pem,
        "configuration": {
            "identity": identity,
            "collectives": options.collectives,
            "plugin.choria.server.provision": "false",
            "plugin.choria.middleware_hosts": ",".join(options.broker),
            "plugin.choria.use_srv": "false",
            "plugin.security.provider": "file",
            "plugin.security.file.certificate": f"{ssldir}/certificate.pem",
            "plugin.security.file.key": f"{ssldir}/private.pem",
            "plugin.security.file.ca": f"{ssldir}/ca.pem",
            "rpcauthorization": "1",
            "rpcauthprovider": "action_policy",
        },
        "action_policies": {"rpcutil.policy": policy, "choria_util.policy": policy},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ca", required=True, help="directory with ca.pem and ca-key.pem")
    parser.add_argument("--broker", required=True, action="append", help="HOST:PORT, again for each broker")
    parser.add_argument("--collectives", default="mcollective", help="collectives, separated by commas")
    parser.add_argument("--allow", action="append", default=[], help="name of a client that may call rpcutil and choria_util")
    parser.add_argument("--signer", choices=["cryptography", "openssl"], help="what signs; the first that is there otherwise")
    options = parser.parse_args()
    if options.signer == "cryptography" and x509 is None:
        sys.exit("helper.py: the Python package cryptography is not there; install it, or use --signer openssl")
    library = x509 is not None and options.signer != "openssl"
    signer = Library(options.ca) if library else Program(options.ca)
    for line in sys.stdin:
        if not line.strip():
            continue
        node = json.loads(line)
        try:
            reply = answer(node, signer, options)
        except (Refused, ValueError, KeyError) as reason:
            # A node that is put off is tried again; the reason shows up in the provisioner's log.
            reply = {"identity": node.get("identity", ""), "defer": True, "msg": str(reason)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
