import glob, os, subprocess, sys
from pathlib import Path
import pytest
from stack.processes import stop
from tests.integration.arrange import until
from tests.integration.conftest import running_ingress
from tests.integration.ops.console.running import running_console
from tests.integration.kyc.test_kyc import decider
from kombu import Connection

def usage():
    cg = Path("/proc/self/cgroup").read_text()
    name = [l.split(":")[2] for l in cg.splitlines() if "cpuacct" in l.split(":")[1].split(",")][0]
    return int(Path(f"/sys/fs/cgroup/cpuacct{name}/cpuacct.usage").read_text()) / 1e9

def say(kind, number):
    with open(os.environ["MICRO"], "a") as f:
        f.write(f"{kind} {number:.2f}\n")

def consumers(settings):
    with Connection(settings.amqp_url) as c:
        return c.default_channel.queue_declare("kyc.decisions", passive=True).consumer_count

def test_micro(settings, amqp_url, database_url, tmp_path):
    for n in range(5):
        b = usage()
        p = decider(settings)
        until(lambda: consumers(settings) == 1, "up")
        p.terminate(); p.wait(30)
        say("kyc", usage() - b)
    for n in range(4):
        b = usage()
        with running_ingress(tmp_path, amqp_url, database_url):
            pass
        say("ingress", usage() - b)
    for n in range(4):
        b = usage()
        with running_console(tmp_path, amqp_url, database_url):
            pass
        say("console", usage() - b)
