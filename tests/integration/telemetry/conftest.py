"""Every process that an order passes, as processes of their own, with their pages of metrics."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stack.folders import ROOT
from stack.mailbox import MailServer
from stack.processes import Process, stop
from stack.servers.credentials import as_service
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from stack.supervisor import MODULES
from tests.integration.arrange import get
from tests.integration.conftest import Api, running_ingress
from tests.integration.ingress.conftest import Sender, approved
from tests.zygote.forks import spawn


@dataclass
class Line:
    """An ingress, a recorder, a relay, a notifier and a mail server, one after the other.

    Attributes:
        api: the ingress.
        sender: a business that may send.
        mail: the mail server.
        pages: where each process shows its metrics.
    """

    api: Api
    sender: Sender
    mail: MailServer
    pages: Mapping[str, str]

    def metric(self, process: str, name: str, **labels: str) -> float:
        """The sum of a metric over all series with these labels; 0 when there is none."""
        return self.page(process)(name, **labels)

    def page(self, process: str) -> Callable[..., float]:
        """What tells the metrics of one look, which belong together; two looks' do not."""
        families = list(text_string_to_metric_families(get(self.pages[process]).text))

        def said(name: str, **labels: str) -> float:
            return sum(
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )

        return said


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """What every process gets beside its servers; a module may say more."""
    return {}


def start_process(name: str, variables: dict[str, str], port: Port, log: Path) -> Process:
    return spawn(
        (sys.executable, "-m", MODULES[name]),
        environment=os.environ | variables | {"METRICS_PORT": str(port)},
        log=log,
        directory=ROOT,
    )


@pytest.fixture(scope="module")
def line(
    module_amqp_url: str,
    module_database_url: str,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Line]:
    folder: Path = tmp_path_factory.mktemp("line")
    mail = MailServer(folder / "mailbox")
    mail.start()
    with ExitStack() as ending:
        ending.callback(mail.stop)
        pages = {}
        for name in ("orders", "relay", "notifier"):
            port = ending.enter_context(Port())
            variables = environment | {
                "AMQP_URL": as_service(module_amqp_url, name),
                "DATABASE_URL": as_service(module_database_url, name),
                "SMTP_PORT": str(mail.port),
            }
            log = folder / f"{name}.log"
            start = partial(start_process, name, variables, port, log)
            process = Start(name, start, (port,), log, LISTEN_SECONDS).wait()
            ending.callback(stop, process, 15)
            pages[name] = f"{Address(port)}/metrics"
        ingress = running_ingress(folder, module_amqp_url, module_database_url, **environment)
        api = ending.enter_context(ingress)
        pages["ingress"] = f"{api.url}/metrics"
        yield Line(api, approved(api), mail, pages)
