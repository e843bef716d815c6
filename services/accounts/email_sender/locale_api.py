"""HTTP API: the language and the time zone of emails."""

from typing import Annotated

import msgspec
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.accounts import SOURCE
from shared.bus import outbox
from shared.bus.contract.events import EmailLocaleChanged, of_account
from shared.db.models import Account, EmailSender
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.languages import language, time_zones

Name = Annotated[str, msgspec.Meta(max_length=100)]


class LocaleSettings(msgspec.Struct, kw_only=True):
    """The language (ISO 639-1) and the IANA time zone of all emails: yours and your customers'."""

    language: Annotated[Name, msgspec.Meta(examples=["fr"])] = language.DEFAULT
    time_zone: Annotated[Name, msgspec.Meta(examples=["Africa/Lagos"])] = "UTC"


class LocaleView(msgspec.Struct, kw_only=True):
    """The current settings, and the available languages."""

    language: str
    time_zone: str
    languages: list[str]


def show(session: Session, call: Call[None, None]) -> Answer:
    """Show the language and the time zone of your emails."""
    found = session.get(EmailSender, call.caller, populate_existing=True)
    return Answer(
        200,
        LocaleView(
            language=language.language(found.language if found else "").code,
            time_zone=time_zones.zone(found.time_zone if found else "").key,
            languages=list(language.CODES),
        ),
    )


def replace(session: Session, call: Call[LocaleSettings, None]) -> Answer:
    """Update both."""
    wanted = call.body
    if wanted.language not in language.CODES:
        known = ", ".join(language.CODES)
        raise ApiError(400, _LANGUAGE[1], f"Emails are written in one of these: {known}.")
    if wanted.time_zone not in time_zones.names():
        raise ApiError(
            400, _ZONE[1], "That is no time zone of the IANA database, such as Africa/Lagos."
        )
    chosen = {"language": wanted.language, "time_zone": wanted.time_zone}
    found = session.get(EmailSender, call.caller)
    if found is not None and (found.language, found.time_zone) == (*chosen.values(),):
        return Answer(200, LocaleView(**chosen, languages=list(language.CODES)))
    changes = chosen | {"changed_at": func.now()}
    session.execute(
        insert(EmailSender)
        .values(account_id=call.caller, **changes)
        .on_conflict_do_update(index_elements=[EmailSender.account_id], set_=changes)
    )
    account = session.get_one(Account, call.caller)
    fact = EmailLocaleChanged(
        **of_account(account),
        address=call.address,
        language=wanted.language,
        time_zone=wanted.time_zone,
    )
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(200, LocaleView(**chosen, languages=list(language.CODES)))


_LANGUAGE = (400, "unknown_language", "Unknown language; `error` names the available ones.")
_ZONE = (400, "unknown_time_zone", "Unknown time zone.")

ROUTES = (
    Route(
        method="GET",
        path="/users/locale/",
        handler=show,
        summary="Show the language and the time zone of your emails",
        answers={200: LocaleView},
        bearer=True,
        tag="Emails",
    ),
    Route(
        method="PUT",
        path="/users/locale/",
        handler=replace,
        summary="Update the language and the time zone of your emails",
        body=LocaleSettings,
        answers={200: LocaleView},
        errors=(_LANGUAGE, _ZONE),
        bearer=True,
        tag="Emails",
    ),
)
