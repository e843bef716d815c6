"""Actions on dead letters: reasons, questions, and reports of what was missed."""

from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from services.ops.audit.actions import Actor, address_fault, unfit
from services.ops.broker.hold import NOT_WHOLE
from services.ops.cli.messages import dead_actions
from services.ops.console.pages.dead import changes
from services.ops.dead_letters import actions, retry_queue, search
from services.ops.dead_letters.actions import Progress, missed
from services.ops.dead_letters.letter import Criteria
from services.ops.dead_letters.retry_queue import Ladder
from services.ops.dead_letters.search import Page
from shared.bus.contract import topology
from shared.ids import new_id

ALL = Criteria()


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        ("the shop asked for it", ""),
        ("@home, at 5 @ noon. A.B", ""),
        ("  ", "must say why"),
        ("for zoe@shop.example", "address"),
        ("<zoe@shop.example>", "address"),
        ("x" * 501, "500"),
        ("x" * (128 << 10), "500"),
    ],
    ids=["fits", "signs", "none", "address", "brackets", "long", "a whole form"],
)
def test_unfit_reasons_are_refused(reason, wrong):
    assert wrong in unfit(reason)
    assert bool(unfit(reason)) == bool(wrong)


@pytest.mark.parametrize(
    ("reason", "is_told"),
    [
        ("", False),
        ("Write to us as IT@kettle.example, please: (it@kettle.example).", False),
        ("It mailed zoe@shop.example.", True),
        ("It mailed zoeit@kettle.example.", True),
        ("It mailed it@kettle.example,zoe@shop.example.", True),
    ],
)
def test_a_reason_for_a_business_contains_no_other_address(reason, is_told):
    assert bool(address_fault(reason, "it@kettle.example")) == is_told


def test_a_complete_action_missed_nothing():
    assert missed(Progress(done=3, passed=2, total=5), ALL) == []
    assert missed(Progress(done=2, passed=7, total=9), Criteria(ids=frozenset({"a", "b"}))) == []


def test_missed_letters_are_described():
    ticked = Criteria(ids=frozenset(str(number) for number in range(40)))
    assert missed(Progress(done=2, passed=3, total=5), ticked) == [
        "38 of those named were not there."
    ]
    state = Progress(done=3, passed=65_532, total=100_000, alone=False, orphaned=2)
    orphaned, unseen, busy = missed(state, ALL)
    assert orphaned.startswith("2 left: the console user who gave")
    assert unseen == "34,465 were not looked at."
    assert "Somebody else is at work there" in busy


def test_named_letters_that_were_left_or_unread_are_not_reported_missing():
    three = Criteria(ids=frozenset("abc"))
    left, gone = missed(Progress(done=1, passed=1, total=2, orphaned=1), three)
    assert (left[:7], gone) == ("1 left:", "1 of those named were not there.")
    assert len(missed(Progress(done=2, passed=1, total=3, orphaned=1), three)) == 1
    for state in (
        Progress(done=2, passed=3, total=5, alone=False),
        Progress(done=2, passed=3, total=9),
    ):
        assert missed(state, three)[-1] == "1 of those named were not found."


SOME = (SimpleNamespace(message_id="m", type="t", reason="r", failed_at=None),) * 3
UNSEEN = {"total": 100_000, "next": None, "unseen": 34_465}


def looking_at(page):
    """Return a console whose queue contains the page's letters."""
    return SimpleNamespace(
        broker=nullcontext, digests=SimpleNamespace(browse=lambda *_, **__: page)
    )


@pytest.mark.parametrize(
    ("page", "count", "nothing"),
    [
        (Page(SOME, total=9, next=None), "3", ""),
        (Page(SOME, total=9, next=5), "at least 3", ""),
        (Page(SOME, total=9, next=None, alone=False), "at least 3", ""),
        (Page(SOME, **UNSEEN), "at least 3", ""),
        (Page((), total=9, next=None), "0", "No such letter is there (any more)."),
        (Page((), **UNSEEN), "at least 0", NOT_WHOLE),
    ],
)
def test_a_question_counts_only_the_letters_that_were_read(monkeypatch, page, count, nothing):
    """Letters beyond the page, or held by others, may be affected too."""
    queue, said = topology.ORDERS_INTAKE, {"all": "yes", "type": "t"}
    visit = SimpleNamespace(
        path={"queue": queue.name},
        field=lambda name: said.get(name, ""),
        system=looking_at(page),
    )
    asked = changes.ask_replay(None, visit)
    assert asked.title.startswith(f"Replay {count} dead letter")
    assert asked.nothing == nothing

    asked_there = []
    monkeypatch.setattr(search, "browse", lambda *_, **__: page)
    monkeypatch.setattr(dead_actions, "sign_in", lambda: None)
    monkeypatch.setattr(dead_actions, "broker", nullcontext)
    monkeypatch.setattr(dead_actions, "confirm", lambda question, _: asked_there.append(question))
    dead_actions._confirmed("Replay {}?", queue, Criteria(type="t"), yes=False)
    assert asked_there == [f"Replay the dead letters that fit, {count},?"]


def test_a_question_counts_the_ticked_letters_that_exist():
    """The number of letters behind it does not matter."""
    visit = SimpleNamespace(
        path={"queue": topology.ORDERS_INTAKE.name},
        field=lambda _: "",
        form={"id": ["a", "b", "c"]},
        system=looking_at(Page(SOME, **UNSEEN)),
    )
    assert changes.ask_replay(None, visit).title == "Replay 3 dead letters of orders.intake?"
    visit.form["id"].append("d")
    assert changes.ask_replay(None, visit).title.startswith("Replay at least 3 dead letters")


@pytest.mark.parametrize(
    ("alone", "unseen", "count"),
    [(True, 0, "1 message"), (False, 0, "at least 1 message"), (True, 5, "at least 1 message")],
)
def test_the_question_about_the_ladder_counts_the_messages_that_were_read(
    monkeypatch, alone, unseen, count
):
    queue = topology.ORDERS_INTAKE
    one = SimpleNamespace(queue=queue.name, type="t", rung="retry.5s", reason="r")
    monkeypatch.setattr(retry_queue, "waiting", lambda _: Ladder([one], alone, unseen))
    visit = SimpleNamespace(path={"queue": queue.name}, system=SimpleNamespace(broker=nullcontext))
    asked = changes.ask_retry(None, visit)
    assert (asked.title, asked.button) == (
        f"Try {count} of {queue.name} again now?",
        f"Try {count} now",
    )


def test_the_rights_of_authors_are_read_again_for_each_batch(monkeypatch):
    """A user who is removed meanwhile gives no further commands."""
    said = dict.fromkeys(("reason", "kind", "type", "correlation_id"), "")
    said |= {"failed_at": None, "died_at": None}
    said["incoming"] = SimpleNamespace(misnamed="", exchange=topology.DEAD, first_key="")
    said["queue"] = topology.KYC_DECISIONS.name
    letters = [SimpleNamespace(person="ada", death=new_id(), **said) for _ in range(2)]
    may = [frozenset({"ada"}), frozenset()]
    monkeypatch.setattr(actions, "authors", lambda *_: may.pop(0))
    taken = []

    def settle(_, __, ___, meant, ____, progress):
        for letter in letters:
            taken.append(meant.match(letter, datetime(2026, 11, 23, tzinfo=UTC)))
            may.append(frozenset())
            progress(Progress())
        return Progress()

    monkeypatch.setattr(actions, "settle", settle)
    ada = Actor("ada", "10.0.0.7")
    left = actions.replay(None, None, topology.KYC_DECISIONS, ALL, ada).orphaned
    assert (taken, left) == ([True, False], 1)
