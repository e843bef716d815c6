"""The HTTP API of email previews: the emails to a business's customers and to the business."""

from typing import Annotated, Literal

import msgspec
from sqlalchemy.orm import Session

from services.notifier import senders
from services.notifier.previews import to_business
from services.notifier.previews.examples import SAMPLES, preview
from shared.db.models import Account
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.languages import language

To = Literal["customer", "business"]


class PreviewIn(msgspec.Struct, kw_only=True):
    """The language; empty for that of your emails."""

    language: Annotated[str, msgspec.Meta(max_length=100, examples=["fr"])] = ""


class EmailPreview(msgspec.Struct, kw_only=True):
    """An example of an email, in both parts."""

    name: str
    language: str
    subject: str
    text: str
    html: str


class PreviewName(msgspec.Struct, kw_only=True):
    """A preview's name, its subject, and whether the email goes to your customers or to you."""

    name: str
    to: To
    subject: str


class PreviewList(msgspec.Struct, kw_only=True):
    """Every email that your customers or you can get."""

    language: str
    results: list[PreviewName]


def index(session: Session, call: Call[None, PreviewIn]) -> Answer:
    """Return the list of all previews."""
    to: dict[str, To] = {
        **dict.fromkeys(SAMPLES, "customer"),
        **dict.fromkeys(to_business.SAMPLES, "business"),
    }
    previews = [_preview(session, call, name) for name in to]
    names = [PreviewName(name=one.name, to=to[one.name], subject=one.subject) for one in previews]
    return Answer(200, PreviewList(language=previews[0].language, results=names))


def show(session: Session, call: Call[None, PreviewIn]) -> Answer:
    """Return one preview."""
    return Answer(200, _preview(session, call, call.path["name"]))


def _preview(session: Session, call: Call[None, PreviewIn], name: str) -> EmailPreview:
    account = session.get(Account, call.caller)
    if account is None or name not in {*SAMPLES, *to_business.SAMPLES}:
        raise ApiError(*_NOT_FOUND)
    chosen = senders.chosen(session, [account.id]).get(account.id, senders.OURS)
    wanted = call.query.language
    if wanted:
        if wanted not in language.CODES:
            raise ApiError(*_LANGUAGE)
        chosen = chosen._replace(language=wanted)
    found = preview(name, account.company_name, chosen)
    return EmailPreview(
        name=name,
        language=language.language(chosen.language).code,
        subject=found.subject,
        text=found.text,
        html=found.html,
    )


_NOT_FOUND = (404, "preview_not_found", "There is no such email.")
_LANGUAGE = (400, "unknown_language", "Emails are not written in this language.")

ROUTES = (
    Route(
        method="GET",
        path="/email-previews/",
        handler=index,
        summary="Every email that your customers or you can get",
        query=PreviewIn,
        answers={200: PreviewList},
        errors=(_LANGUAGE,),
        bearer=True,
        tag="Emails",
    ),
    Route(
        method="GET",
        path="/email-previews/{name}/",
        handler=show,
        summary="An email as your customers or you would get it",
        query=PreviewIn,
        answers={200: EmailPreview},
        errors=(_NOT_FOUND, _LANGUAGE),
        bearer=True,
        tag="Emails",
    ),
)
