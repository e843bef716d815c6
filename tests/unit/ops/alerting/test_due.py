"""Which alerts are due, when, and their text."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.ops.alerting.due import SUBJECT_LENGTH, due
from services.ops.monitoring.episodes import Episode
from shared.ids import new_id
from tests.unit.ops.monitoring.samples import at

MINUTE, FOUR_HOURS = timedelta(minutes=1), timedelta(hours=4)
MAIL = Episode(new_id(), "mail: away", "down", "mail", "The mail server is away.", at(0))
DEAD = Episode(new_id(), "q: dead", "warning", "q", "3 dead letters in q", at(0))


def told(episode, seconds, what="began", channel="webhook"):
    return replace(episode, told={channel: {"what": what, "at": at(seconds).isoformat()}})


def found(*episodes, now):
    return due(episodes, "webhook", at(now), MINUTE, FOUR_HOURS)


def test_a_trouble_is_sent_once_after_it_has_lasted():
    assert found(MAIL, now=59) is None
    assert found(MAIL, now=60).began == [MAIL]
    assert found(told(MAIL, 60), now=3_000) is None
    # Of each channel by itself.
    other = told(MAIL, 60, channel="email")
    assert found(other, now=3_000).began == [other]


def test_troubles_that_begin_together_share_a_message_worst_first():
    many = [replace(DEAD, id=new_id(), key=f"q{n}: dead") for n in range(9)]
    assert found(*many, MAIL, now=60).began == [MAIL, *many]
    # And what begins a little later waits for its minute.
    first = told(MAIL, 60)
    assert found(first, replace(DEAD, began_at=at(5)), now=119) is None
    assert len(found(first, replace(DEAD, began_at=at(5)), now=120).began) == 1


def test_the_end_is_sent_of_a_trouble_that_was_sent():
    ended = replace(MAIL, ended_at=at(600))
    assert found(ended, now=700) is None
    was_told = told(ended, 60)
    assert found(was_told, now=700).ended == [was_told]
    assert found(told(ended, 700, "ended"), now=3_000) is None


def test_reminders_until_it_is_acknowledged():
    hours = FOUR_HOURS.total_seconds()
    reminded = told(MAIL, 60)
    assert found(reminded, now=60 + hours - 1) is None
    assert found(reminded, now=60 + hours).reminded == [reminded]
    assert found(replace(reminded, acknowledged_by="ada"), now=60 + hours) is None
    # Its end is told all the same.
    over = replace(reminded, acknowledged_by="ada", ended_at=at(90))
    assert found(over, now=200).ended == [over]


def test_a_muted_trouble_is_not_sent():
    muted = replace(MAIL, muted_by="ada")
    assert found(muted, now=600) is None
    assert found(told(muted, 60), now=100_000) is None
    assert found(replace(told(muted, 60), ended_at=at(600)), now=700) is None
    # A mute runs out: it is told if it is there yet, and its end is.
    short = replace(muted, muted_until=at(3_600))
    assert found(short, now=3_599) is None
    assert found(short, now=3_600).began == [short]
    later = replace(told(short, 3_600), ended_at=at(4_000))
    assert found(later, now=4_100).ended == [later]


def test_subject_and_text():
    begun = replace(MAIL, text="The mail\nserver refused <zoe@shop.example>: it is so. " * 9)
    hours = FOUR_HOURS.total_seconds()
    message = found(begun, told(DEAD, 0), now=hours)
    assert message.subject.startswith("Order Fellow: 1 new, 1 still there: The mail server refused")
    assert len(message.subject) == SUBJECT_LENGTH
    text = message.text(at(hours))
    assert "zoe@shop.example" not in message.subject + text
    assert [line.partition(":")[0] for line in text.splitlines()] == [
        "New",
        "- down since 2026-11-24 12",
        "Still there, and nobody has acknowledged it",
        "- warning since 2026-11-24 12",
    ]
    assert "(4 h): 3 dead letters in q" in text
    over = found(replace(told(MAIL, 60), ended_at=at(600)), now=700)
    assert over.text(at(700)) == "Over:\n- after 10 min: The mail server is away."
    assert over.subject == "Order Fellow: 1 over: The mail server is away."


@pytest.mark.parametrize("what", ["began", "ended"])
def test_records_of_a_message(what):
    one = told(replace(MAIL, ended_at=at(600)), 60) if what == "ended" else MAIL
    ((noted, said),) = found(one, now=700).records(at(700))
    assert noted == one
    assert said == {"what": what, "at": at(700).isoformat(), "figure": 0}


@pytest.mark.parametrize(
    "taken", [{"acknowledged_by": "ada"}, {"muted_by": "ada"}], ids=["acknowledged", "muted"]
)
def test_a_doubled_trouble_is_sent_again_even_if_acknowledged_or_muted(taken):
    said = {"webhook": {"what": "began", "at": at(60).isoformat(), "figure": 3}}
    known = replace(DEAD, told=said, figure=3, accepted_figure=40, **taken)
    assert found(replace(known, figure=79), now=600) is None
    grown = replace(known, figure=80, text="80 dead letters in q")
    message = found(grown, now=600)
    assert message.grown == [grown]
    assert "1 grown: 80 dead letters" in message.subject
    assert "At least twice as much as when it was told" in message.text(at(600))
    ((_, noted),) = message.records(at(600))
    assert noted["figure"] == 80
    # From then on it is known to be so much.
    again = replace(known, told={"webhook": noted})
    assert found(replace(again, figure=159), now=6_000) is None
    assert found(replace(again, figure=3_000), now=6_000).grown


def test_a_small_growth_is_not_sent():
    said = {"webhook": {"what": "began", "at": at(60).isoformat(), "figure": 0}}
    one = replace(DEAD, told=said, accepted_figure=1, acknowledged_by="ada")
    assert found(replace(one, figure=10), now=600) is None
    assert found(replace(one, figure=11), now=600).grown
    # A version before has not noted how much it was.
    old = replace(DEAD, told={"webhook": {"what": "began", "at": at(60).isoformat()}}, figure=9_000)
    assert found(old, now=600) is None


def test_a_stamp_in_the_future_is_ignored():
    """The clock of the console that sent it was wrong for a moment."""
    ahead = told(DEAD, 30_000)
    assert found(ahead, MAIL, now=60).began == [MAIL]
    assert found(ahead, now=60).reminded == [ahead]


def test_stamps_are_compared_by_the_databases_clock():
    """This console's clock, by which it sees troubles begin, is a day ahead."""
    day = timedelta(days=1)
    known, new = told(replace(DEAD, began_at=at(0) + day), 60), replace(MAIL, began_at=at(5) + day)
    late = {"after": MINUTE, "remind": FOUR_HOURS}
    assert due([known, new], "webhook", at(100) + day, database_now=at(100), **late) is None
    assert due([known, new], "webhook", at(130) + day, database_now=at(130), **late).began == [new]
