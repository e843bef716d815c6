"""An account's webhook policy: allowed networks, rate, signature schemes, and blocking.

The business sets its allowlist and schemes over HTTP, operators the rate and the block by commands.
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
from shared.http.standing import held
from shared.ids import follow_up_id
from shared.security.networks import NetworkError, is_within, parse, valid_networks

Cidr = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Cidrs = Annotated[list[Cidr], msgspec.Meta(max_length=100)]


class Allowlist(msgspec.Struct, kw_only=True):
    """Networks in CIDR notation, IPv4 or IPv6; an empty list allows requests from anywhere."""

    allowed_networks: Cidrs


class AllowlistView(msgspec.Struct, kw_only=True):
    """The networks that requests may come from, and whether your own address is in them."""

    allowed_networks: list[str]
    your_address: str
    your_address_is_allowed: bool
    warning: str | None


class Schemes(msgspec.Struct, kw_only=True):
    """How requests may be signed: by any scheme, or by Standard Webhooks only.

    `X-API-Key` signs only the body, so a person who has seen a request can send it again as another
    order. So it is with the schemes of WooCommerce and Shopify, which are refused as well then.
    """

    standard_webhooks_only: bool


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the account's allowlist."""
    policy = session.get(WebhookPolicy, call.caller)
    listed = policy.allowed_networks if policy else []
    return Answer(200, _view(listed, call.address))


def replace(session: Session, call: Call[Allowlist, None]) -> Answer:
    """Replace the allowlist; ingress workers have it within a second, the owner gets an email."""
    try:
        parsed = [str(parse(text)) for text in call.body.allowed_networks]
    except NetworkError as error:
        raise ApiError(400, "invalid_network", f"{error}.") from None
    networks = list(dict.fromkeys(parsed))
    account = held(session, call.caller)
    before = session.get(WebhookPolicy, account.id, with_for_update=True)
    if set(networks) != set(before.allowed_networks if before else ()):
        _put(session, account_id=account.id, allowed_networks=networks)
        fact = WebhookAllowlistChanged(
            **of_account(account), address=call.address, allowed_networks=tuple(networks)
        )
        outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(200, _view(networks, call.address))


def show_schemes(session: Session, call: Call[None, None]) -> Answer:
    """Return the schemes by which the account's requests may be signed."""
    policy = session.get(WebhookPolicy, call.caller)
    return Answer(200, Schemes(standard_webhooks_only=_is_standard_only(policy)))


def choose_schemes(session: Session, call: Call[Schemes, None]) -> Answer:
    """Set the schemes; every ingress worker has them within a second, the owner gets an email."""
    account = held(session, call.caller)
    before = session.get(WebhookPolicy, account.id, with_for_update=True)
    only = call.body.standard_webhooks_only
    if only != _is_standard_only(before):
        _put(session, account_id=account.id, standard_webhooks_only=only)
        fact = AccountChanged(
            **of_account(account),
            what="standard_webhooks_only" if only else "both_schemes",
            address=call.address,
        )
        outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(200, call.body)


def _is_standard_only(policy: WebhookPolicy | None) -> bool:
    return policy is not None and policy.standard_webhooks_only


def on_limit(session: Session, received: Received[WebhookLimit]) -> None:
    """Set an account's rate, or reset it to the default.

    Raises:
        Permanent: the account does not exist, or the command's id was used before.
    """
    command = received.data
    if session.get(Account, command.account_id) is None:
        raise Permanent("no such account")
    before = session.get(WebhookPolicy, command.account_id, with_for_update=True)
    if command.per_second == (before.rate_per_second if before else None):
        return
    received.take_effect_once()
    _put(session, account_id=command.account_id, rate_per_second=command.per_second)


def on_block(session: Session, received: Received[AccountBlock]) -> None:
    """Block or unblock an account; its owner gets one email.

    Raises:
        Permanent: the account does not exist, or the command's id was used before.
    """
    command = received.data
    account = session.get(Account, command.account_id)
    if account is None:
        raise Permanent("no such account")
    before = session.get(WebhookPolicy, account.id, with_for_update=True)
    if command.blocked == (before is not None and before.blocked_at is not None):
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
    # The same id when the journal is replayed, so the owner gets one email; with `what`, since a
    # client may use one id for blocking and unblocking.
    fact_id = follow_up_id(received.id, f"{fact.TYPE} {fact.what}", account.id)
    outbox.add_fact(session, fact, account.id, source=SOURCE, message_id=fact_id)


def _put(session: Session, **values: object) -> None:
    changes = {name: value for name, value in values.items() if name != "account_id"}
    session.execute(
        insert(WebhookPolicy)
        .values(**values)
        .on_conflict_do_update(index_elements=[WebhookPolicy.account_id], set_=changes)
    )


def _view(networks: list[str], address: str) -> AllowlistView:
    allowed = not networks or is_within(address, valid_networks(networks))
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
        summary="How your webhooks may be signed",
        answers={200: Schemes},
        bearer=True,
        tag="Webhook secret",
    ),
    Route(
        method="PUT",
        path="/webhook/schemes/",
        handler=choose_schemes,
        summary="Set how your webhooks may be signed",
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
        summary="Set where your webhooks may come from",
        body=Allowlist,
        answers={200: AllowlistView},
        errors=((400, "invalid_network", "A member of the list is no network in CIDR notation."),),
        bearer=True,
        tag="Webhook secret",
    ),
)
