"""`fellow trail`: what happened to an order."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from services.ops.broker.hold import NOT_WHOLE
from services.ops.cli.acting import enter, note_view
from services.ops.cli.terminal import (
    FAILED,
    AsJson,
    broker,
    database,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.journal.reading import NotReadToTheEndError
from services.ops.timelines import order as trail
from services.ops.timelines import search
from services.ops.timelines.order import OrderTrail, in_words
from services.ops.timelines.pending import Waiting


def show(
    order: Annotated[
        str,
        typer.Argument(
            help="Order number, order id, idempotency key or the customer's email address."
        ),
    ],
    bus: Annotated[
        bool, typer.Option(help="Look for what waits on the retry ladder and among dead letters.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """What happened to an order: from the request to the last email, and what still waits."""
    system = enter()
    with database(system) as session, broker(system) if bus else nullcontext() as connection:
        try:
            orders = search.search(session, order, connection=connection)
        except NotReadToTheEndError as error:
            stop(f"The journal cannot be read ({error}). What is recorded is found with --no-bus.")
        if not orders.is_whole:
            say(NOT_WHOLE)
        order_id = _chosen([found.order_id for found in orders], order)
        found = None
        if order_id is not None:
            found = trail.order_trail(session, order_id, connection=connection)
    # Printed out here: a reader who hangs up is not the broker.
    if order_id is None:
        note_view(system, "fellow trail", [str(one.order_id) for one in orders[: search.AT_MOST]])
        _list(orders, as_json)
    if found is None:
        stop(f"Nothing is known of {order}.")
    note_view(system, "fellow trail", [str(order_id)])
    if as_json:
        print_json(found)
    else:
        _print(found)


def waiting_table(waiting: tuple[Waiting, ...]) -> Table:
    """What waits, for people."""
    table = Table("waits in", "since", "type", "tries", "reason", box=None, pad_edge=False)
    for message in waiting:
        tries = str(message.attempts or "")
        since = local(message.since)
        table.add_row(message.place, since, message.type, tries, message.reason)
    return table


def _chosen(ids: list[UUID], text: str) -> UUID | None:
    """The one order that is meant; None when there are several."""
    if len(ids) > 1:
        return None
    if ids:
        return ids[0]
    try:
        return UUID(text.strip())  # not recorded, but it may wait somewhere
    except ValueError:
        stop(f"No order is known by {text}.")


def _list(orders: Sequence[search.Found], as_json: bool) -> None:
    found = orders[: search.AT_MOST]
    if as_json:
        print_json(found)
    else:
        table = Table("accepted", "number", "order", "company", "customer", "status", box=None)
        for order in found:
            accepted, id_ = local(order.accepted_at), str(order.order_id)
            table.add_row(
                accepted,
                order.order_number,
                id_,
                order.company_name,
                order.customer_email,
                order.tracking_status or "not recorded",
            )
        results().print(table)
    more = "There are more. " if len(orders) > len(found) else ""
    say(f"{len(found)} orders. {more}Name one by its id.")
    raise typer.Exit(FAILED)


def _print(found: OrderTrail) -> None:
    console = results()
    where = found.tracking_status or "not recorded"
    if found.is_test:
        where += ", a test order"
    number = f"{found.order_number}, " if found.order_number else ""
    console.print(f"Order {number}{found.order_id}: {where}", highlight=False, markup=False)
    if found.company_name:
        console.print(f"from {found.company_name} for {found.customer_name}")
    if found.parcel:
        console.print(f"parcel: {in_words(found.parcel)}", highlight=False, markup=False)
    if found.metadata:
        said = ", ".join(f"{name}: {value}" for name, value in found.metadata.items())
        console.print(said, highlight=False, markup=False)
    table = Table("when", "what", "", "by", "event", box=None, pad_edge=False)
    for step in found.steps:
        at = step.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
        table.add_row(at, step.what, step.text, step.service, str(step.event_id or ""))
    console.print(table)
    if found.is_cut:
        say("Older states and emails are left out.")
    if found.waiting:
        console.print(waiting_table(found.waiting))
    if not found.is_whole:
        say(NOT_WHOLE)
    elif not found.waiting and found.waiting is not None:
        say("Nothing waits for it.")
