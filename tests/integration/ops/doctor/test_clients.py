"""The doctor reports a proxy that TRUSTED_PROXIES does not count."""

from datetime import UTC, datetime, timedelta

import pytest

from services.ops.doctor import checks
from shared.db.models import AuditEntry
from shared.ids import new_id
from shared.security.audit_chain import GENESIS


@pytest.mark.parametrize(
    ("sign_ins", "days", "found"),
    [
        ([("a", "172.18.0.1"), ("b", "172.18.0.1"), ("c", "9.9.9.9")], 0, True),
        ([("a", "172.18.0.1"), ("b", "172.18.0.1")], 2, False),  # before the proxy was counted
        ([("a", "172.18.0.1"), ("a", "172.18.0.1")], 0, False),  # one business in one's own network
        ([("a", "9.9.9.9"), ("b", "9.9.9.9")], 0, False),  # two of one office
        ([("a", "services.accounts"), ("b", "services.accounts")], 0, False),  # no address at all
    ],
)
def test_an_internal_address_of_several_businesses_is_reported(db, sign_ins, days, found):
    for sequence, (business, address) in enumerate(sign_ins, 1):
        db.add(
            AuditEntry(
                sequence=sequence,
                event_id=new_id(),
                type="account.signed_in",
                happened_at=datetime.now(UTC) - timedelta(days=days),
                actor="it@kettle.example",
                address=address,
                correlation_id=business,
                data="{}",
                previous_hash=GENESIS,
                hash=GENESIS,
            )
        )
    db.flush()
    reported = list(checks._clients(db.connection()))
    assert [check.state for check in reported] == ["look"] * found
    assert all("172.18.0.1" in check.found for check in reported)
