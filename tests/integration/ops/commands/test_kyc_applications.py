"""The applications of the KYC desk: found, sorted, and each on one page."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update
from sqlalchemy.event import listen, remove

from services.ops.commands import kyc_applications
from services.ops.commands.kyc_applications import Filter, Sort, Status
from shared.db.models import KycApplication, KycDecision, OpsUser
from shared.ids import new_id
from tests.integration.arrange import account, ahead, application


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("status", Status)
def test_the_pages_of_a_list_have_each_application_once(db, status, sort):
    for number in range(9):
        # Two of a name, and all of a time.
        account(db, status=status.value, company_name=f"Kettle {number // 2}")
    wanted = Filter(status, sort=sort)
    whole = kyc_applications.applications(db, wanted)
    paged, after = [], None
    while page := kyc_applications.applications(db, wanted, limit=2, after=after):
        paged += page
        after = page[-1].id
    assert len(whole) == 9
    assert paged == list(whole)


def test_a_page_goes_on_after_one_that_has_been_decided(db):
    for _ in range(3):
        account(db, status="pending")
    wanted = Filter(Status.PENDING)
    first, second, _ = kyc_applications.applications(db, wanted)
    decided = update(KycApplication).where(KycApplication.id == first.id).values(status="rejected")
    db.execute(decided)
    assert kyc_applications.applications(db, wanted, limit=1, after=first.id) == [second]


def test_the_newest_decision_comes_first(db):
    now = datetime.now(UTC)
    for minutes in (3, 1, 2):
        business = account(db, status="approved", company_name=str(minutes))
        db.execute(
            update(KycApplication)
            .where(KycApplication.account_id == business.id)
            .values(decided_at=now - timedelta(minutes=minutes))
        )
    found = kyc_applications.applications(db, Filter(Status.APPROVED, sort=Sort.DECIDED))
    assert [one.company_name for one in found] == ["1", "2", "3"]


def test_what_was_sent_back_and_answered_waits_for_nothing(db):
    waiting, answered = (account(db, status="incomplete", company_name=n) for n in ("A", "B"))
    again = application(answered, "pending")
    again.submitted_at = datetime.now(UTC) + timedelta(minutes=1)
    db.add(again)
    db.commit()
    found = kyc_applications.applications(db, Filter(Status.INCOMPLETE))
    assert [one.account_id for one in found] == [waiting.id]
    counted = kyc_applications.counts(db, Filter(Status.INCOMPLETE))
    assert (counted[Status.INCOMPLETE], counted[Status.PENDING]) == (1, 1)


@pytest.mark.parametrize(
    ("words", "finds"),
    [
        ("KETTLE", ["100% Kettle", "Blue_Kettle"]),
        ("0% k", ["100% Kettle"]),
        ("e_k", ["Blue_Kettle"]),
        ("spoon.example", ["Spoon"]),
        ("rc-77", ["Spoon"]),
        ("\\", []),
    ],
)
def test_words_are_looked_for_as_they_are(db, words, finds):
    account(db, status="pending", company_name="100% Kettle")
    account(db, status="pending", company_name="Blue_Kettle")
    account(db, status="pending", company_name="Spoon", email="a@spoon.example", number="RC-77")
    account(db, status="approved", company_name="Spoon and Kettle")
    wanted = Filter(Status.PENDING, words, Sort.COMPANY)
    found = kyc_applications.applications(db, wanted)
    assert [one.company_name for one in found] == finds
    assert kyc_applications.counts(db, wanted)[Status.PENDING] == len(finds)


def test_who_may_not_see_a_number_cannot_find_it_out(db):
    business = account(db, status="pending", company_name="Spoon", number="RC-77")
    for words in ("RC-7", "RC-77", business.email[:8], business.email):
        wanted = Filter(Status.PENDING, words, names_only=True)
        assert kyc_applications.applications(db, wanted) == []
        assert not any(kyc_applications.counts(db, wanted).values())
    for words in ("poon", str(business.id).upper()):
        wanted = Filter(Status.PENDING, words, names_only=True)
        assert len(kyc_applications.applications(db, wanted)) == 1


def test_a_number_that_another_business_gave_is_pointed_out(db):
    blue = account(db, status="pending", company_name="Blue", number="RC 100-7")
    red = account(db, status="approved", company_name="Red", number="rc1007")
    db.add(application(red, "rejected", "RC-1007"))
    account(db, status="pending", company_name="Green", number="RC-10071")
    # Its own number, given before.
    db.add(application(blue, "rejected", "RC 100-7"))
    # Nothing is left of such a number, so it is nobody else's.
    account(db, status="pending", company_name="Dash", number="-")
    account(db, status="pending", company_name="Dot", number=".")
    db.commit()
    found = kyc_applications.applications(db, Filter(Status.PENDING, sort=Sort.COMPANY))
    same = kyc_applications.same_number(db, found)
    assert {one.company_name for one in found} == {"Blue", "Dash", "Dot", "Green"}
    (of_blue,) = [one.id for one in found if one.company_name == "Blue"]
    assert list(same) == [of_blue]
    assert {(one.account_id, one.company_name) for one in same[of_blue].named} == {(red.id, "Red")}
    assert same[of_blue].in_words == "Red (rejected)"


def test_a_number_that_was_given_before_another_one_is_pointed_out(db):
    """A later application under another number does not hide it."""
    blue = account(db, status="pending", company_name="Blue", number="RC 100-7")
    red = account(db, status="rejected", company_name="Red", number="rc1007")
    db.flush()
    db.add(application(red, "pending", "RC-2"))
    db.commit()
    found = kyc_applications.applications(db, Filter(Status.PENDING, sort=Sort.COMPANY))
    same = kyc_applications.same_number(db, found)
    (of_blue,) = [one.id for one in found if one.account_id == blue.id]
    assert list(same) == [of_blue]
    assert same[of_blue].in_words == "Red (rejected)"


def test_of_what_thousands_type_a_few_are_named_and_the_rest_counted(db, engine):
    """By an index, which is there for what few type."""
    db.execute(
        text(
            "WITH made AS (INSERT INTO accounts (id, company_name, email, password_hash,"
            " email_verified_at) SELECT gen_random_uuid(), 'Shop ' || n, n || '@shop.example', '',"
            " now() FROM generate_series(1, 2000) n RETURNING id)"
            " INSERT INTO kyc_applications (id, account_id, business_registration_number,"
            " business_address, contact_person_details, status) SELECT gen_random_uuid(), id,"
            " (ARRAY['n/a', 'N/A', ' NA. '])[1 + abs(hashtext(id::text)) % 3], '', '', 'pending'"
            " FROM made"
        )
    )
    db.commit()
    db.execute(text("ANALYZE kyc_applications"))
    found = kyc_applications.applications(db, Filter(Status.PENDING), limit=51)
    statements = []

    def note(_, __, statement, parameters, *___):
        statements.append((statement, parameters))

    listen(db.get_bind(), "before_cursor_execute", note)
    same = kyc_applications.same_number(db, found)
    remove(db.get_bind(), "before_cursor_execute", note)
    assert {(len(one.named), one.more) for one in same.values()} == {(6, 1993)}
    assert len(same) == 51
    assert all(one.in_words.endswith("; and 1,993 more") for one in same.values())
    ids = {one.id: one.account_id for one in found}
    assert all(ids[id_] not in {s.account_id for s in one.named} for id_, one in same.items())
    assert statements
    with engine.connect() as connection:
        # Where all have typed the same, the whole table is read at once.
        connection.exec_driver_sql("SET enable_seqscan = off")
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
            assert "ix_kyc_applications_bare_number" in "\n".join(plan), statement


def test_of_who_has_decided_it_is_said_who_is_no_user_any_more(settings, db):
    business = account(db, status="pending")
    (one,) = kyc_applications.applications(db, Filter(Status.PENDING))
    db.add(OpsUser(id=new_id(), name="ada", rights=["kyc"], password_hash="-"))
    decided = {"ada": "ada (fellow_console)", "bob": "bob (fellow_console)", "eve": "eve"}
    for person, by in decided.items():
        db.add(
            KycDecision(
                application_id=one.id,
                decision="approve",
                person=person,
                decided_by=by,
                reason="",
                message_id=new_id(),
                needed=4,
                decided_at=datetime.now(UTC),
                expires_at=ahead(days=1),
            )
        )
    db.commit()
    said = kyc_applications.newest(db, business.id).so_far
    assert "ada (fellow_console), bob (fellow_console), no user any more, eve; 2 more" in said
    assert said.startswith("2 of 4")
