"""docs/privacy.md classifies every column and every queue; a new one fails until it is added."""

import re
from collections import Counter
from pathlib import Path

from sqlalchemy import JSON, LargeBinary, String
from sqlalchemy.types import ARRAY

from services.ops.customers.messages_on_bus import CUSTOMER_QUEUES
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db.models import Base

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "privacy.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
TABLES, QUEUES = SECTIONS["Tables"], SECTIONS["Queues and streams"]


WORDS = (String, JSON, LargeBinary, ARRAY)
WITHOUT_WORDS = {
    "one of ours": """
        pending_proofs.purpose email_senders.language email_senders.time_zone webhook_requests.code
        webhook_requests.event_type webhook_requests.scheme webhook_requests.note
        webhook_requests.fault kyc_applications.status kyc_decisions.decision
        webhook_secrets.platform webhook_secrets.state webhook_public_keys.state
        orders.tracking_status
        order_status_history.tracking_status email_deliveries.template email_deliveries.state
        suppressions.cause ops_users.rights ops_users.role inbox.consumer outbox.exchange
        outbox.routing_key outbox.type outbox.source outbox.written_by outbox.mended_by
        rehearsals.queue audit_log.type service_heartbeats.service service_heartbeats.instance
        service_heartbeats.version""",
    "a hash, a key or what is sealed": """
        pending_proofs.code_hash attempt_counts.key one_time_codes.code_hash
        webhook_requests.signature webhook_requests.body_sha256 webhook_secrets.key_hash
        webhook_secrets.sealed webhook_public_keys.public_key suppressions.key_id
        ops_sessions.token_hash portal_sessions.token_hash ops_second_factors.sealed
        ops_second_factors.offered ops_second_factors.offered_to inbox.digest
        ops_recovery_codes.code_hash ops_attempt_counts.key audit_log.previous_hash
        audit_log.hash""",
    "the id of an order, an account or a trace, or a time": """
        webhook_requests.webhook_timestamp email_deliveries.subject_id outbox.correlation_id
        outbox.traceparent audit_log.correlation_id""",
    "a business's shop": "webhook_secrets.shop",
    "our own sentence on queues and services": """
        ops_troubles.key ops_troubles.level ops_troubles.about ops_troubles.text ops_troubles.told
        service_heartbeats.queues""",
}
"""Text columns without personal data, by reason."""


def listed():
    """Return how often the page has each column: in the table of personal data, and in the list."""
    personal = Counter()
    for row in re.findall(r"^\| (`\w+\.\w+`[^|]*)\|", TABLES, re.MULTILINE):
        personal.update(re.findall(r"`(\w+\.\w+)`", row))
    others = Counter()
    for table, columns in re.findall(r"^- `(\w+)`: (`.*)$", TABLES, re.MULTILINE):
        others.update(f"{table}.{column}" for column in re.findall(r"`(\w+)`", columns))
    return personal, others


def test_every_column_is_classified_once():
    personal, others = listed()
    columns = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
    }
    assert personal + others == Counter(columns)


def test_text_columns_are_personal_or_listed_as_impersonal():
    """A new text column counts as a customer's until it is classified: see `erase_customer`."""
    personal, _ = listed()
    wordless = {name for names in WITHOUT_WORDS.values() for name in names.split()}
    words = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, WORDS)
    }
    assert words - personal.keys() == wordless


def test_every_queue_is_listed_once():
    rows = re.findall(r"^\| (`[\w.]+`[^|]*)\|", QUEUES, re.MULTILINE)
    names = Counter(name for row in rows for name in re.findall(r"`([\w.]+)`", row))
    assert names == Counter(queue.name for queue in topology.QUEUES)


def test_queues_with_customers_are_those_that_an_erasure_searches():
    rows = re.findall(r"^\| (`[\w.]+`[^|]*)\| customers \|", QUEUES, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert names == {queue.name for queue in CUSTOMER_QUEUES} | {
        queue.dead for queue in CUSTOMER_QUEUES
    }


def test_the_documented_retention_defaults_are_the_settings():
    rows = re.findall(r"^\| `(RETENTION_\w+)` \| .* \| (\d+) \|$", PAGE, re.MULTILINE)
    settings = Settings()
    assert {name: int(days) for name, days in rows} == {
        name.upper(): getattr(settings, name)
        for name in Settings.__struct_fields__
        if name.startswith("retention_")
    }
