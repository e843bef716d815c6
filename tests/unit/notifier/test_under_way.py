"""What is under way changes in the thread that keeps its leases, while a batch looks at it."""

from uuid import UUID

import pytest

from services.notifier import deliveries
from services.notifier.bounds import Bounds
from services.notifier.handlers import Notifier
from services.notifier.mail.outgoing import Sending
from shared.ids import new_id


class FactId(UUID):
    """As it is hashed the other thread has its turn."""

    __slots__ = ()
    under_way = ()

    def __hash__(self):
        if len(self.under_way) > 1:
            self.under_way.popitem()
        return super().__hash__()


@pytest.mark.parametrize("look", ["batch", "stop", "lost"])
def test_entries_may_end_while_another_thread_reads_them(monkeypatch, look):
    notifier = Notifier(None, "us@fellow.example", Bounds(5))
    ids = [FactId(int=new_id().int) for _ in range(3)]
    sending = Sending([], 1, str)
    monkeypatch.setattr(sending, "outcome", lambda _: None)
    for id_ in ids:
        notifier._under_way[id_] = (sending, 0)
    monkeypatch.setattr(FactId, "under_way", notifier._under_way)
    if look == "batch":
        others = {new_id() for _ in range(2)}
        known = deliveries.Known(set(), others, set(), set())
        monkeypatch.setattr(deliveries, "known", lambda *_: known)
        assert notifier(None, []).keys() == others
    elif look == "stop":
        asked = [UUID(int=id_.int) for id_ in ids]
        assert asked[0] in notifier.happened(asked)
    else:
        notifier.lost()
        assert ids[0] in notifier._lost
