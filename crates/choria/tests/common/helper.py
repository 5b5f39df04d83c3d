#!/usr/bin/env python3
import json
import subprocess
import sys
import time

node = json.load(sys.stdin)
name, ssl = node["identity"], node["csr"]["ssldir"]
with open("CALLS", "a") as calls:
    calls.write(name + "\n")
BEFORE
signed = subprocess.run(
    ["PROGRAM", "ca", "sign", "AUTHORITY", "-", "--identity", name],
    input=node["csr"]["csr"], capture_output=True, text=True,
)
if signed.returncode != 0:
    json.dump({"defer": True, "msg": signed.stderr}, sys.stdout)
    sys.exit()
json.dump({
    "certificate": signed.stdout,
    "ca": open("AUTHORITY/ca.pem").read(),
    "configuration": {
        "identity": name,
        "plugin.choria.server.provision": "false",
        "plugin.choria.middleware_hosts": "localhost:PORT",
        "plugin.choria.use_srv": "false",
        "plugin.security.provider": "file",
        "plugin.security.file.certificate": ssl + "/certificate.pem",
        "plugin.security.file.key": ssl + "/private.pem",
        "plugin.security.file.ca": ssl + "/ca.pem",
    },
    "action_policies": {
        "rpcutil.policy": "policy default deny\nallow\tchoria=tester.mcollective\tping inventory\t*\t*\n",
    },
}, sys.stdout)
