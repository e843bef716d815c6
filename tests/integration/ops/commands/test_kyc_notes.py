"""Notes on an application: of operators, by name, kept as they are, and told to nobody else."""

import hashlib
import json
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from services.ops.audit.actions import Actor
from services.ops.commands import kyc_applications, kyc_notes
from shared.bus.contract.events import OpsKycNoteAdded, decode
from shared.db.models import KycNote, OutboxMessage
from stack.servers.credentials import as_service
from tests.integration.arrange import account, application
from tests.integration.ops.cli.test_cli import fellow

NOTE = "Telephoned: the director's name is <b>not</b> in the register."


def told(db):
    rows = db.scalars(select(OutboxMessage).where(OutboxMessage.type == OpsKycNoteAdded.TYPE))
    return [decode(row.type, row.body) for row in rows]


def test_a_note_is_kept_by_name_shown_and_audited_without_its_words(settings, db):
    business = account(db, status="pending")
    for note in (NOTE, "A second look."):
        code, _, err = fellow(settings, "kyc", "note", business.email, note)
        assert code == 0, err
        assert "Kept on the application of Kettle & Co" in err
    code, out, err = fellow(settings, "kyc", "show", business.email)
    assert code == 0, err
    for shown in (NOTE, "A second look.", "fellow: ", "pending", business.email):
        assert shown in out
    kept = json.loads(fellow(settings, "kyc", "show", str(business.id), "--json")[1])
    assert [one["note"] for one in kept["notes"]] == [NOTE, "A second look."]
    assert kept["status"] == "pending"
    fact = told(db)[0]
    assert (fact.by, fact.account_id) == ("fellow", business.id)
    assert fact.digest == hashlib.sha256(NOTE.encode()).hexdigest()
    db.rollback()
    bodies = db.scalars(select(OutboxMessage.body)).all()
    assert not any(b"Telephoned" in bytes(body) for body in bodies)


def test_a_note_on_an_earlier_application_is_shown_with_the_newer_one_and_says_so(settings, db):
    business = account(db, status="incomplete")
    other = account(db, status="pending")
    for one, note in ((business, NOTE), (other, "Of another business.")):
        assert fellow(settings, "kyc", "note", one.email, note)[0] == 0
    db.add(application(business, "pending", "RC-1"))
    db.commit()
    assert fellow(settings, "kyc", "note", business.email, "On the new one.")[0] == 0
    found = kyc_applications.newest(db, business.id)
    first, second = kyc_notes.notes(db, [found.id])[found.id]
    assert (first.note, second.note) == (NOTE, "On the new one.")
    assert first.earlier is not None
    assert second.earlier is None
    assert first.earlier <= found.submitted_at
    code, out, _ = fellow(settings, "kyc", "show", business.email)
    assert code == 0
    assert out.count("on the application of") == 1
    assert "Of another business." not in out
    # And what was said of the newer is no word on the earlier.
    (earlier,) = db.scalars(select(KycNote.application_id).where(KycNote.note == NOTE))
    assert [one.note for one in kyc_notes.notes(db, [earlier])[earlier]] == [NOTE]


@pytest.mark.parametrize("note", ["", "  \n ", "x" * 4_001])
def test_what_is_no_note_is_not_kept(settings, db, note):
    business = account(db, status="pending")
    assert fellow(settings, "kyc", "note", business.email, note)[0] == 2
    assert db.scalars(select(KycNote)).all() == []
    assert told(db) == []


def test_nobody_without_an_application_has_notes(settings, db):
    business = account(db)
    for command in (("note", business.email, NOTE), ("show", business.email)):
        code, _, err = fellow(settings, "kyc", *command)
        assert code == 1
        assert "has not applied" in err


def test_a_note_has_a_persons_name_that_the_broker_knows(settings, db):
    business = account(db, status="pending")
    service = {"AMQP_URL": as_service(settings.amqp_url, "ops")}
    note = ("kyc", "note", business.email, NOTE)
    code, _, err = fellow(settings, *note, **service)
    assert code == 2
    assert "fellow_ops is no person's user: give --as" in err
    code, _, err = fellow(settings, *note, "--as", "mallory", FELLOW_PASSWORD="x", **service)
    assert code == 1
    assert "The broker" in err
    assert told(db) == []
    url = urlsplit(settings.amqp_url)
    own = ("--as", url.username)
    code, _, err = fellow(settings, *note, *own, FELLOW_PASSWORD=url.password, **service)
    assert code == 0, err
    db.rollback()
    assert [fact.by for fact in told(db)] == [url.username]


@pytest.mark.parametrize(
    "change", ["UPDATE kyc_notes SET note = 'x'", "DELETE FROM kyc_notes", "TRUNCATE kyc_notes"]
)
def test_no_note_is_changed_or_removed(settings, db, engine, change):
    business = account(db, status="pending")
    found = kyc_applications.newest(db, business.id)
    kyc_notes.add(db, Actor("ada", "192.0.2.7"), found, NOTE)
    db.commit()
    with pytest.raises(DBAPIError, match="kept as they were written"), engine.begin() as connection:
        connection.execute(text(change))
    assert db.scalars(select(KycNote.note)).all() == [NOTE]
