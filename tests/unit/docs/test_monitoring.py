"""The table of metrics, the alert rules and the dashboard match the code and the runbook."""

import ast
import json
import re
import time
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import services.ingress.metrics
import services.notifier.metrics
import services.ops.alerting.metrics
import services.ops.monitoring.metrics
import services.proof.metrics
import services.relay.metrics
import shared.bus.metrics
import shared.http.metrics
import shared.telemetry.metrics
from services.ops.console.pages import runbook
from services.ops.console.pages.runbook import section
from services.ops.monitoring import alerts
from services.proof.__main__ import Prover
from services.proof.proving import SCHEMES
from shared.bus.contract import topology
from shared.config.settings import Settings
from stack.folders import ROOT

MONITORING = ROOT / "docs" / "monitoring"
MODULES = (
    services.ingress.metrics,
    services.notifier.metrics,
    services.ops.alerting.metrics,
    services.ops.monitoring.metrics,
    services.proof.metrics,
    shared.bus.metrics,
    shared.http.metrics,
    shared.telemetry.metrics,
    services.relay.metrics,
)
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
TARGETS = [
    (panel, target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [expression for _, expression in TARGETS]
# What Prometheus itself says of a target, and prometheus_client of its process.
USUAL = {
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}
# deps/rabbitmq_prometheus/metrics.md and metrics-detailed.md of RabbitMQ, 3.10 and 4.
RABBITMQ = {
    "rabbitmq_alarms_free_disk_space_watermark",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_detailed_queue_consumers",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_unacked",
}


# What stands for it in the place of a trouble, where `alerts.py` writes no word.
STANDS_FOR = {
    "queue.name": "orders.intake",
    "service": "services.kyc",
    "beat.service": "services.kyc",
    "scheme": "hex",
    "kind": "kyc.decisions does not work",
    "REFUSES": "refuses",
    "f'{part}{WAITS}'": "kyc.decisions waits",
}


def troubles():
    """What each trouble that there is is about, and its kind, out of the source."""
    tree = ast.parse(Path(alerts.__file__).read_text())
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Trouble":
            _, about, _, kind = call.args[:4]
            yield tuple(
                part.value if isinstance(part, ast.Constant) else STANDS_FOR[ast.unparse(part)]
                for part in (about, kind)
            )


TROUBLES = set(troubles())


def ours():
    """Every metric of ours that is declared: name, type, labels."""
    collectors = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, MetricWrapperBase)
    }
    found = {
        (metric.name + "_total" * (metric.type == "counter"), metric.type, collector._labelnames)
        for collector in collectors
        for metric in collector.describe()
    }
    waiting = services.relay.metrics.OutboxCollector(engine=None).describe()
    return found | {(metric.name, metric.type, ()) for metric in waiting}


def series():
    """The names of all time series that these metrics make."""
    names = set()
    for name, kind, _ in ours():
        histogram = {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        names |= histogram if kind == "histogram" else {name}
    return names


def selectors(expression):
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    assert found, expression
    return found


def test_the_table_of_metrics_is_complete_and_right():
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(fellow_\w+)` \| (\w+) \| (.*?) ?\| .+ \| .+ \|$", text, re.MULTILINE)
    rows_ = [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows]
    assert len(rows_) == len(set(rows_))
    assert set(rows_) == ours()


def test_metrics_have_one_prefix_and_the_usual_units():
    for name, kind, labels in ours():
        assert name.startswith("fellow_")
        assert name.endswith("_total") == (kind == "counter")
        # Prometheus has these for itself, and renames ours.
        assert not {"job", "instance"} & set(labels)


def test_every_expression_parses_and_names_existing_metrics():
    known = series() | USUAL | RABBITMQ
    for expression in EXPRESSIONS:
        assert {selector.name for selector in selectors(expression)} <= known, expression


def test_queue_selectors_match_all_of_a_kind_and_no_others():
    work, dead, retry = (
        {queue.name for queue in queues}
        for queues in (topology.WORK_QUEUES, topology.DEAD_QUEUES, topology.RETRY_QUEUES)
    )
    shards = {queue.name for queue in topology.shards(12)}
    work |= shards
    every = {queue.name for queue in topology.QUEUES} | shards
    chosen = [
        {name for name in every if re.fullmatch(matcher.value, name)}
        for expression in EXPRESSIONS
        for selector in selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "queue"
    ]
    assert len(chosen) > 5
    assert all(names in (work, shards, dead, dead | retry) for names in chosen)


def test_a_started_proof_has_two_rounds_before_its_alert(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    Prover(Settings(database_url="postgresql+psycopg2://x:y@h/x"), sink=None)
    (samples,) = (metric.samples for metric in services.proof.metrics.proved_at.collect())
    assert [sample.value for sample in samples] == [1_800_000_000.0] * len(SCHEMES)


def test_every_alert_says_what_to_do_and_has_its_section():
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    names = [rule["alert"] for rule in RULES]
    assert [section for section in sections if section in names] == names
    assert set(sections) == set(names) | {section(*trouble) for trouble in TROUBLES}
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        # What is the matter, and then what to do.
        assert re.search(r"[.:] .+\.$", rule["annotations"]["summary"])


@pytest.mark.parametrize("trouble", sorted(TROUBLES))
def test_every_trouble_of_the_banner_has_a_section(trouble):
    headings = re.findall(r'<h2 id="(\w+)">', runbook.text())
    assert section(*trouble).lower() in headings


def test_the_troubles_are_found():
    """All that `test_alerts.py` and the doctor know of."""
    assert len(TROUBLES) >= 20
    assert {("mail", "away"), ("orders.intake", "grows"), ("console", "blind")} <= TROUBLES


def test_the_runbook_page_has_no_links_to_other_documents():
    links = re.findall(r'href="([^"]*)"', runbook.text())
    headings = re.findall(r'id="(\w+)"', runbook.text())
    assert links
    assert {link.removeprefix("#") for link in links} <= set(headings)


def test_the_dashboard_is_sound():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    for panel, _ in TARGETS:
        assert panel["datasource"]["uid"] == "${datasource}"


def test_the_dashboard_shows_every_metric():
    shown = {selector.name for _, expression in TARGETS for selector in selectors(expression)}
    for name, kind, _ in ours():
        wanted = {f"{name}_bucket", f"{name}_sum"} if kind == "histogram" else {name}
        assert shown & wanted, name


def test_every_process_of_the_compose_file_is_scraped():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    scraping = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert scraping["rule_files"] == ["alerts.yml"]
    targets = {
        tuple(target.split(":"))
        for job in scraping["scrape_configs"]
        for config in job.get("static_configs", ())
        for target in config["targets"]
    }
    # One name has several addresses there, and a scrape of it would be of whichever comes first.
    several = {name for name, service in compose.items() if "scale" in service}
    found = [one for job in scraping["scrape_configs"] for one in job.get("dns_sd_configs", ())]
    assert [(one["names"], one["type"], one["port"]) for one in found] == [(["ingress"], "A", 8000)]
    assert several == {"ingress"}
    # A name that leads nowhere, or to one fewer, is no target that is down: it is none.
    (down,) = (rule["expr"] for rule in RULES if rule["alert"] == "ProcessDown")
    for job in scraping["scrape_configs"]:
        if "dns_sd_configs" in job:
            up = f'up{{job="{job["job_name"]}"}}'
            assert f"or absent({up})" in down
            assert f"or count({up}) < " in down
    serving = {
        (name, service["environment"]["METRICS_PORT"])
        for name, service in compose.items()
        if "METRICS_PORT" in service.get("environment", {})
    }
    assert targets == serving | {("rabbitmq", "15692")}
    assert {name for name, _ in serving} == {
        "orders", "kyc", "secrets", "notifier", "audit", "relay", "proof", "ops", "portal"
    }  # fmt: skip
    published = [port for service in compose.values() for port in service.get("ports", ())]
    assert not any("9100" in port or "15692" in port for port in published)
