"""What work among dead letters leaves, and says that it did not do."""

from types import SimpleNamespace

from services.ops.audit.actions import Actor
from services.ops.dead_letters import actions
from services.ops.dead_letters.actions import Progress, missed
from services.ops.dead_letters.letter import Criteria
from shared.bus.contract import topology
from shared.ids import new_id

ALL = Criteria()


def test_nothing_is_said_where_all_that_was_meant_was_done():
    assert missed(Progress(done=3, passed=2, total=5), ALL) == []
    assert missed(Progress(done=2, passed=7, total=9), Criteria(ids=frozenset({"a", "b"}))) == []


def test_what_was_not_done_is_said():
    ticked = Criteria(ids=frozenset(str(number) for number in range(40)))
    assert missed(Progress(done=2, passed=3, total=5), ticked) == [
        "38 of those named were not there."
    ]
    state = Progress(done=3, passed=65_532, total=100_000, alone=False, orphaned=2)
    orphaned, unseen, busy = missed(state, ALL)
    assert orphaned.startswith("2 left: whoever gave the command")
    assert unseen == "34,465 were not looked at."
    assert "Somebody else is at work there" in busy


def test_who_may_give_a_command_is_asked_for_at_each_batch(monkeypatch):
    """Who is removed meanwhile goes on giving none."""
    said = {"failed_at": None, "reason": "", "kind": "", "type": "", "correlation_id": ""}
    letters = [SimpleNamespace(person="ada", death=new_id(), **said) for _ in range(2)]
    may = [frozenset({"ada"}), frozenset()]
    monkeypatch.setattr(actions, "authors", lambda *_: may.pop(0))
    taken = []

    def settle(_, __, ___, meant, ____, progress):
        for letter in letters:
            taken.append(meant.match(letter, None))
            may.append(frozenset())
            progress(Progress())
        return Progress()

    monkeypatch.setattr(actions, "settle", settle)
    ada = Actor("ada", "10.0.0.7")
    left = actions.replay(None, None, topology.KYC_DECISIONS, ALL, ada).orphaned
    assert (taken, left) == ([True, False], 1)
