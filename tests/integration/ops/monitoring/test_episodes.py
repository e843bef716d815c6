"""Troubles in the database: one row from the beginning to the end, and what people say of it."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import text, update

from services.ops.audit.actions import Actor
from services.ops.monitoring import episodes
from services.ops.monitoring.alerts import Trouble
from services.ops.monitoring.heartbeats import Beat, QueueBeat
from services.ops.monitoring.visibility import OVER
from shared.bus.broker.queue_counts import Count
from shared.bus.contract.events import decode
from shared.db.models import OpsTrouble, OutboxMessage
from shared.db.session import transaction
from tests.integration.arrange import PATIENCE, ago, ahead, until
from tests.unit.ops.monitoring.samples import at, everybody, sample

ADA = Actor("ada", "10.0.0.7")
MAIL = Trouble("down", "mail", "The mail server does not answer: 3 emails wait.", "away")
GROWS = Trouble("warning", "orders.intake", "orders.intake has grown for 60 s", "grows")
OLD_ONE = Trouble("warning", "kyc.decisions", "Its oldest message is 3 min old", "old")
DEAD = Trouble("warning", "orders.intake", "3 dead letters in orders.intake", "dead letters")


@pytest.fixture
def service():
    return "ops"


WORKS = QueueBeat(state="working")


def beats(seconds, **services):
    """A heartbeat of every service, which all work; those of `services` as they say."""
    told = {"services_notifier": {"notifier.orders": WORKS}} | services
    return [
        replace(beat, queues=told.get(beat.service.replace(".", "_"), {}))
        for beat in everybody(seconds)
    ]


class Console:
    """One process that looks."""

    def __init__(self):
        self._samples = []

    def sees(self, seconds, *troubles, **more):
        seen = {"beats": beats(seconds)} | more
        self._samples.append(replace(sample(seconds), **seen))
        with transaction() as session:
            return episodes.keep(session, self._samples, troubles)

    def misses(self, seconds):
        """A look while the database is away."""
        self._samples.append(replace(sample(seconds), database_error="it is away"))

    def looks(self, since, until_, *troubles, **more):
        """Every ten seconds, to an end; give what the last look left."""
        left = {}
        for seconds in range(since, until_ + 1, 10):
            left = self.sees(seconds, *troubles, **more)
        return left


@pytest.fixture
def console():
    return Console()


def acknowledged(row):
    with transaction() as session:
        assert episodes.acknowledge(session, row.id, ADA, "On it.", at(1))
    return row.id


def test_one_that_ends_and_comes_back_is_new(settings, db, console):
    first = console.sees(0, MAIL)[MAIL.key]
    with transaction() as session:
        assert episodes.acknowledge(session, first.id, ADA, "On it.", at(1))
        assert episodes.mute(session, first.id, ADA, None)
    # A look that misses it is no end.
    assert console.sees(12, MAIL)[MAIL.key].id == first.id
    console.sees(24)
    kept = console.sees(36, Trouble("down", "mail", "4 emails wait.", "away"))[MAIL.key]
    assert (kept.id, kept.text, kept.acknowledged_by) == (first.id, "4 emails wait.", "ada")
    assert kept.is_muted(at(10_000))
    assert console.looks(46, 66).keys() == {MAIL.key}
    later = 36 + int(OVER.total_seconds()) + 1
    assert console.sees(later) == {}
    again = console.sees(later + 12, MAIL)[MAIL.key]
    assert again.id != first.id
    assert (again.acknowledged_by, again.note, again.muted_by) == ("", "", "")
    ended = db.get(OpsTrouble, first.id)
    assert (ended.began_at, ended.ended_at) == (at(0), at(36))


def test_what_cannot_be_seen_has_not_ended(settings, console):
    kept = console.sees(0, MAIL, DEAD)
    hidden = console.looks(10, 100, broker_error="it is away")
    # Of the mail server the notifier tells.
    assert {key: one.id for key, one in hidden.items()} == {DEAD.key: kept[DEAD.key].id}


def test_letters_in_somebodys_hand_are_not_fewer(settings, console):
    """Whoever looks through a dead queue has nearly all of it in hand for a moment."""

    def dead(figure):
        text_ = f"{figure} dead letters in orders.intake"
        return Trouble("warning", "orders.intake", text_, "dead letters", figure)

    kept = console.sees(0, dead(9_000))[DEAD.key]
    acknowledged(kept)
    counts = sample(0).counts | {"orders.intake.dead": Count(3, 1)}
    hidden = console.looks(10, 100, dead(3), counts=counts)[DEAD.key]
    assert (hidden.id, hidden.accepted_figure) == (kept.id, 9_000)
    assert hidden.figure == 9_000
    after = console.sees(110, dead(9_003))[DEAD.key]
    assert (after.id, after.figure, after.accepted_figure) == (kept.id, 9_003, 9_000)


@pytest.mark.parametrize("about", ["orders.intake", "ladder"])
def test_a_queue_that_does_not_answer_hides_its_troubles(settings, console, about):
    trouble = Trouble("warning", about, "3 messages wait.", "waits")
    silent = "orders.intake" if about == "orders.intake" else "retry.5s"
    console.sees(0, trouble)
    assert trouble.key in console.looks(10, 100, silent={silent})
    assert trouble.key in console.looks(110, 130)
    assert console.sees(141) == {}


def test_after_a_restart_a_trouble_goes_on_that_is_seen_only_later(settings, console):
    """A queue grows: the new process needs a minute of samples to see it."""
    id_ = acknowledged(console.sees(0, MAIL, GROWS)[GROWS.key])
    again = Console()
    # Also one that is there again soon: the services need ten seconds to tell of the mail server.
    assert again.sees(100).keys() == {MAIL.key, GROWS.key}
    assert again.looks(110, 160, MAIL).keys() == {MAIL.key, GROWS.key}
    kept = again.sees(170, MAIL, GROWS)[GROWS.key]
    assert (kept.id, kept.acknowledged_by) == (id_, "ada")


def test_after_a_restart_a_trouble_ends_that_is_not_seen(settings, console):
    console.sees(0, MAIL, GROWS, OLD_ONE)
    again = Console()
    assert again.looks(100, 130).keys() == {MAIL.key, GROWS.key, OLD_ONE.key}
    assert again.sees(131).keys() == {GROWS.key, OLD_ONE.key}
    assert again.looks(140, 190).keys() == {GROWS.key, OLD_ONE.key}
    assert again.sees(191).keys() == {OLD_ONE.key}
    assert again.looks(200, 250).keys() == {OLD_ONE.key}
    assert again.sees(251) == {}


def test_after_an_absence_of_the_database_one_look_ends_nothing(settings, console):
    id_ = acknowledged(console.sees(0, MAIL)[MAIL.key])
    # While it is away, nothing is written down.
    for seconds in range(10, 60, 10):
        console.misses(seconds)
    assert console.sees(60)[MAIL.key].id == id_
    kept = console.sees(70, MAIL)[MAIL.key]
    assert (kept.id, kept.acknowledged_by) == (id_, "ada")


def test_after_a_process_was_frozen_one_look_ends_nothing(settings, console):
    id_ = console.sees(0, MAIL)[MAIL.key].id
    assert console.sees(600)[MAIL.key].id == id_
    assert console.looks(610, 630)[MAIL.key].id == id_
    assert console.sees(631) == {}


def test_after_an_absence_of_the_broker_a_queue_is_counted_for_a_while_first(settings, console):
    id_ = console.sees(0, GROWS)[GROWS.key].id
    console.looks(10, 100, broker_error="it is away")
    assert console.looks(110, 160)[GROWS.key].id == id_
    assert console.sees(170, GROWS)[GROWS.key].id == id_


def test_it_is_audited_and_what_has_ended_is_left(settings, db, console):
    one = console.sees(0, MAIL)[MAIL.key]
    with transaction() as session:
        assert episodes.acknowledge(session, one.id, ADA, "On it.", at(1))
        assert episodes.mute(session, one.id, ADA, at(3600))
        assert episodes.unmute(session, one.id, ADA)
    rows = db.query(OutboxMessage).order_by(OutboxMessage.sequence)
    facts = [decode(row.type, row.body) for row in rows]
    assert [(f.by, f.action, f.trouble, f.note, f.until) for f in facts] == [
        ("ada", "acknowledged", "mail: away", "On it.", None),
        ("ada", "muted", "mail: away", "", at(3600)),
        ("ada", "unmuted", "mail: away", "", None),
    ]
    console.looks(10, 40)
    with transaction() as session:
        assert not episodes.acknowledge(session, one.id, ADA, "", at(200))
        assert not episodes.mute(session, one.id, ADA, None)
        assert not episodes.unmute(session, one.id, ADA)


def test_a_mute_runs_out(settings, console):
    one = console.sees(0, MAIL)[MAIL.key]
    with transaction() as session:
        episodes.mute(session, one.id, ADA, at(3600))
        found = episodes.find(session, one.id)
    assert found.is_muted(at(3599))
    assert not found.is_muted(at(3600))


def test_two_consoles_that_look_at_once_write_one_row(settings, db, console):
    """The second has looked before the first commits: it waits, and then leaves it be."""
    found = []

    def look():
        found.append(console.sees(0, MAIL)[MAIL.key].id)

    with transaction() as session:
        first = episodes.keep(session, [sample(0)], [MAIL])[MAIL.key].id
        other = threading.Thread(target=look)
        other.start()
        until(lambda: waits(db), "the other waits")
    other.join(PATIENCE)
    assert found == [first]
    assert db.query(OpsTrouble).count() == 1


def waits(db):
    db.rollback()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return db.scalar(text(f"{waiting} AND datname = current_database()"))


def test_those_of_long_ago_are_forgotten(settings, db, console):
    console.sees(0, MAIL)
    console.looks(10, 40)
    assert db.query(OpsTrouble).count() == 1
    # By both clocks: that of whoever looks may have jumped ahead.
    later = (ahead(days=400) - at(0)).total_seconds()
    console.sees(later)
    assert db.query(OpsTrouble).count() == 1
    db.execute(update(OpsTrouble).values(ended_at=ago(days=31)))
    db.commit()
    console.sees(later + 10)
    assert db.query(OpsTrouble).count() == 0


STOPPED = Trouble(
    "down", "services.kyc", "It does not work on kyc.decisions", "kyc.decisions does not work"
)
WAITS = Trouble("warning", "services.kyc", "It waits with kyc.decisions", "kyc.decisions waits")
ALARM = Trouble("down", "broker", "The broker takes no messages", "alarm")
UNSEEN = Trouble("warning", "queues", "Not all queues can be looked at", "unseen")
UNPROVED = Trouble("down", "proof", "No order has gone the whole way", "hex")


def all_but(service):
    """What is heard while one service is not: its last heartbeat gets old."""
    return lambda seconds: {
        "beats": [
            replace(beat, seen_at=at(0)) if beat.service == service else beat
            for beat in beats(seconds)
        ]
    }


def starting(service, part):
    told = {service.replace(".", "_"): {part: QueueBeat(state="starting")}}
    return lambda seconds: {"beats": beats(seconds, **told)}


def proof(seen_at):
    """That a standing proof was last heard of then."""
    return lambda seconds: {
        "beats": [
            *beats(seconds),
            Beat("services.proof", "h:1", "1.0", at(0), at(seen_at), {}),
        ]
    }


@pytest.mark.parametrize(
    ("trouble", "hides"),
    [
        (MAIL, all_but("services.notifier")),
        (MAIL, starting("services.notifier", "notifier.orders")),
        (STOPPED, all_but("services.kyc")),
        (STOPPED, starting("services.kyc", "kyc.decisions")),
        (WAITS, all_but("services.kyc")),
        (ALARM, lambda _: {"broker_error": "it is gone"}),
        (UNSEEN, lambda _: {"broker_error": "it is gone"}),
        (UNPROVED, proof(0)),
    ],
)
def test_who_saw_it_is_gone_and_it_is_not_over(settings, console, trouble, hides):
    id_ = console.sees(0, trouble)[trouble.key].id
    for seconds in range(40, 200, 10):
        left = console.sees(seconds, **hides(seconds))
    assert left[trouble.key].id == id_
    # Once it would be seen again and is not, it is.
    console.looks(200, 230)
    assert console.sees(231) == {}


def test_a_standing_proof_that_is_out_of_service_hides_nothing(settings, console):
    day = 86_400
    console.sees(0, UNPROVED)
    for seconds in range(day + 60, day + 120, 10):
        left = console.sees(seconds, **proof(0)(seconds))
    assert left == {}


def test_how_much_it_was_when_it_was_taken_for_known_is_kept(settings, console):
    dead = [replace(DEAD, text=f"{n} dead letters", figure=n) for n in (3, 40, 90)]
    one = console.sees(0, dead[0])[DEAD.key]
    assert (one.figure, one.accepted_figure) == (3, None)
    console.sees(10, dead[1])
    acknowledged(one)
    one = console.sees(20, dead[2])[DEAD.key]
    assert (one.figure, one.accepted_figure) == (90, 40)
    with transaction() as session:
        episodes.mute(session, one.id, ADA, None)
        assert episodes.find(session, one.id).accepted_figure == 90


def test_what_is_known_of_how_much_it_is_falls_with_it(settings, console):
    """It never ends, and what it was at its worst is no measure of what comes after."""
    many = [replace(DEAD, text=f"{n} dead letters", figure=n) for n in (300, 200, 20, 90)]
    one = console.sees(0, many[0])[DEAD.key]
    acknowledged(one)
    with transaction() as session:
        said = {"what": "began", "at": at(1).isoformat(), "figure": 300}
        episodes.note_alert(session, one, "webhook", said)
    for number, (trouble, known) in enumerate(zip(many, (300, 300, 20, 20), strict=True)):
        one = console.sees(10 + number, trouble)[DEAD.key]
        assert (one.accepted_figure, one.told["webhook"]["figure"]) == (known, known)


def test_who_acknowledges_takes_for_known_what_they_were_shown(settings, console):
    dead = [replace(DEAD, text=f"{n} dead letters", figure=n) for n in (3, 40)]
    console.sees(0, dead[0])
    one = console.sees(10, dead[1])[DEAD.key]
    for say in (episodes.acknowledge, episodes.mute):
        more = ("On it.", at(1)) if say is episodes.acknowledge else (None,)
        with transaction() as session:
            assert say(session, one.id, ADA, *more, shown=3)
            assert episodes.find(session, one.id).accepted_figure == 3
