"""Runs in the folder of an older commit, by its own code: all its services, one process each.

`python -c <this text> SINK_PORT`; prints what `bench.chains.base` reads, and ends when its standard
input does.
"""

import json
import sys

from bench.ground import ground
from bench.usage import children
from stack.processes import free_port
from stack.supervisor import MODULES

SERVERS = {"RabbitMQ": "rabbitmq-server", "PostgreSQL": "bin/postgres -D"}

with ground() as on:
    url, ingress = on.start_ingress()
    processes = {"ingress": ingress.pid}
    for name in MODULES:
        if name != "ingress":
            service = on.start_service(name, SMTP_PORT=sys.argv[1], OPS_PORT=str(free_port()))
            processes[name] = service.pid
    told = {
        "url": url,
        "keys": on.keys,
        "database_url": on.servers.database_url,
        "processes": processes | children(SERVERS),
    }
    print(json.dumps(told), flush=True)
    sys.stdin.read()
