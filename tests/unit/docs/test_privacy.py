"""docs/privacy.md classes every column and every queue: a new one fails until somebody has."""

import re
from collections import Counter
from pathlib import Path

from services.ops.customers.messages_on_bus import PASSED_BY
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db.models import Base

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "privacy.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
TABLES, QUEUES = SECTIONS["Tables"], SECTIONS["Queues and streams"]


def listed():
    """Columns by how often the page has them, in the table of what is personal and in the list."""
    personal = Counter()
    for row in re.findall(r"^\| (`\w+\.\w+`[^|]*)\|", TABLES, re.MULTILINE):
        personal.update(re.findall(r"`(\w+\.\w+)`", row))
    others = Counter()
    for table, columns in re.findall(r"^- `(\w+)`: (`.*)$", TABLES, re.MULTILINE):
        others.update(f"{table}.{column}" for column in re.findall(r"`(\w+)`", columns))
    return personal, others


def test_every_column_is_classed_once():
    personal, others = listed()
    columns = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
    }
    assert personal + others == Counter(columns)


def test_every_queue_is_listed_once():
    rows = re.findall(r"^\| (`[\w.]+`[^|]*)\|", QUEUES, re.MULTILINE)
    names = Counter(name for row in rows for name in re.findall(r"`([\w.]+)`", row))
    assert names == Counter(queue.name for queue in topology.QUEUES)


def test_queues_with_customers_are_those_that_are_looked_through():
    rows = re.findall(r"^\| (`[\w.]+`[^|]*)\| customers \|", QUEUES, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert names == {queue.name for queue in PASSED_BY} | {queue.dead for queue in PASSED_BY}


def test_the_settings_of_retention_are_as_they_are():
    rows = re.findall(r"^\| `(RETENTION_\w+)` \| .* \| (\d+) \|$", PAGE, re.MULTILINE)
    settings = Settings()
    assert {name: int(days) for name, days in rows} == {
        name.upper(): getattr(settings, name)
        for name in Settings.__struct_fields__
        if name.startswith("retention_")
    }
