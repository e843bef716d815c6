"""From where an account's webhooks may come, how many a second, and by what they are signed.

The business keeps its allowlist over HTTP; operators adjust the rate by a command on the bus.
"""

from typing import Annotated

import msgspec
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.secrets import SOURCE
from shared.bus import outbox
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    AccountBlock,
    AccountChanged,
    WebhookAllowlistChanged,
    WebhookLimit,
    of_account,
)
from shared.bus.contract.message import Received
from shared.db.models import Account, WebhookPolicy
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.ids import follow_up_id
from shared.security.networks import NetworkError, is_within, parse, readable

Cidr = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Cidrs = Annotated[list[Cidr], msgspec.Meta(max_length=100)]


class Allowlist(msgspec.Struct, kw_only=True):
    """Networks in CIDR notation, IPv4 or IPv6; none means that requests may come from anywhere."""

    allowed_networks: Cidrs


class AllowlistView(msgspec.Struct, kw_only=True):
    """The networks that requests may come from, and whether your own address is within."""

    allowed_networks: list[str]
    your_address: str
    your_address_is_allowed: bool
    warning: str | None


class Schemes(msgspec.Struct, kw_only=True):
    """By what requests may be signed: either scheme, or Standard Webhooks alone.

    By `X-API-Key` the body is signed and nothing else: whoever has seen a request can send it
    again, and that is another order. So it is with the schemes of WooCommerce and Shopify, which
    Standard Webhooks alone refuses too.
    """

    standard_webhooks_only: bool


def show(session: Session, call: Call[None, None]) -> Answer:
    """The account's allowlist."""
    policy = session.get(WebhookPolicy, call.caller)
    listed = policy.allowed_networks if policy else []
    return Answer(200, _view(listed, call.address))


def replace(session: Session, call: Call[Allowlist, None]) -> Answer:
    """Replace it; every ingress worker knows within a second, and the owner is told."""
    try:
        parsed = [str(parse(text)) for text in call.body.allowed_networks]
    except NetworkError as error:
        raise ApiError(400, "invalid_network", f"{error}.") from None
    networks = list(dict.fromkeys(parsed))
    account = session.get_one(Account, call.caller)
    before = session.get(WebhookPolicy, account.id, with_for_update=True)
    if set(networks) != set(before.allowed_networks if before else ()):
        _put(session, account_id=account.id, allowed_networks=networks)
        fact = WebhookAllowlistChanged(
            **of_account(account), address=call.address, allowed_networks=tuple(networks)
        )
        outbox.tell(session, fact, account.id, source=SOURCE)
    return Answer(200, _view(networks, call.address))


def show_schemes(session: Session, call: Call[None, None]) -> Answer:
    """The schemes that the account's requests may be signed by."""
    policy = session.get(WebhookPolicy, call.caller)
    return Answer(200, Schemes(standard_webhooks_only=_is_standard_only(policy)))


def choose_schemes(session: Session, call: Call[Schemes, None]) -> Answer:
    """Choose; every ingress worker knows within a second, and the owner is told."""
    account = session.get_one(Account, call.caller)
    before = session.get(WebhookPolicy, account.id, with_for_update=True)
    only = call.body.standard_webhooks_only
    if only != _is_standard_only(before):
        _put(session, account_id=account.id, standard_webhooks_only=only)
        fact = AccountChanged(
            **of_account(account),
            what="standard_webhooks_only" if only else "both_schemes",
            address=call.address,
        )
        outbox.tell(session, fact, account.id, source=SOURCE)
    return Answer(200, call.body)


def _is_standard_only(policy: WebhookPolicy | None) -> bool:
    return policy is not None and policy.standard_webhooks_only


def on_limit(session: Session, received: Received[WebhookLimit]) -> None:
    """Set an account's rate, or give it the default again.

    Raises:
        Permanent: there is no such account, or see `take_effect_once`.
    """
    command = received.data
    if session.get(Account, command.account_id) is None:
        raise Permanent("no such account")
    held = session.get(WebhookPolicy, command.account_id, with_for_update=True)
    if command.per_second == (held.rate_per_second if held else None):
        return
    received.take_effect_once()
    _put(session, account_id=command.account_id, rate_per_second=command.per_second)


def on_block(session: Session, received: Received[AccountBlock]) -> None:
    """Block an account or let it in again; its owner is told, once.

    Raises:
        Permanent: there is no such account, or see `take_effect_once`.
    """
    command = received.data
    account = session.get(Account, command.account_id)
    if account is None:
        raise Permanent("no such account")
    held = session.get(WebhookPolicy, account.id, with_for_update=True)
    if command.blocked == (held is not None and held.blocked_at is not None):
        return
    received.take_effect_once()
    _put(
        session,
        account_id=account.id,
        blocked_at=func.clock_timestamp() if command.blocked else None,
    )
    fact = AccountChanged(
        **of_account(account),
        what="blocked" if command.blocked else "unblocked",
        by="an operator",
        reason=command.reason,
    )
    # The same when the journal is replayed: the owner is not told twice. To let in is another fact
    # than to block, though a client may give both commands one id.
    fact_id = follow_up_id(received.id, f"{fact.TYPE} {fact.what}", account.id)
    outbox.tell(session, fact, account.id, source=SOURCE, message_id=fact_id)


def _put(session: Session, **values: object) -> None:
    changes = {name: value for name, value in values.items() if name != "account_id"}
    session.execute(
        insert(WebhookPolicy)
        .values(**values)
        .on_conflict_do_update(index_elements=[WebhookPolicy.account_id], set_=changes)
    )


def _view(networks: list[str], address: str) -> AllowlistView:
    allowed = not networks or is_within(address, readable(networks))
    warning = (
        None
        if allowed
        else f"This request came from {address:.64}, which is not in the list: "
        "webhooks from there are refused."
    )
    return AllowlistView(
        allowed_networks=networks,
        your_address=address,
        your_address_is_allowed=allowed,
        warning=warning,
    )


ROUTES = (
    Route(
        method="GET",
        path="/webhook/schemes/",
        handler=show_schemes,
        summary="By what your webhooks may be signed",
        answers={200: Schemes},
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="PUT",
        path="/webhook/schemes/",
        handler=choose_schemes,
        summary="Say by what your webhooks may be signed",
        body=Schemes,
        answers={200: Schemes},
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="GET",
        path="/webhook/allowlist/",
        handler=show,
        summary="Where your webhooks may come from",
        answers={200: AllowlistView},
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="PUT",
        path="/webhook/allowlist/",
        handler=replace,
        summary="Say where your webhooks may come from",
        body=Allowlist,
        answers={200: AllowlistView},
        errors=((400, "invalid_network", "A member of the list is no network in CIDR notation."),),
        bearer=True,
        tag="Webhook secret",
    ),
)
