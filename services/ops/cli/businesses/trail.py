"""`fellow trail`: an order's history."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated
from uuid import UUID

import typer

from services.ops.broker.hold import NOT_WHOLE, BusyError
from services.ops.cli.acting import note_view, sign_in
from services.ops.cli.businesses.commands import find_business
from services.ops.cli.terminal import (
    FAILED,
    AsJson,
    Table,
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
from services.ops.timelines import requests, search
from services.ops.timelines.order import OrderTrail, in_words
from services.ops.timelines.pending import Waiting
from shared.ids import is_id

OF_LATELY = (
    "For an order that is not recorded, only the requests of the last two days were searched; "
    "--business searches all days."
)


def show(
    order: Annotated[
        str,
        typer.Argument(
            help="Order number, order id, idempotency key or the customer's email address."
        ),
    ],
    business: Annotated[
        str, typer.Option(help="Only this business's: its id, email or registration number.")
    ] = "",
    bus: Annotated[
        bool, typer.Option(help="Search the retry ladder and the dead letters, too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """An order's history: from the request to the last email, and what still waits."""
    system = sign_in()
    account_id = find_business(system, business).account_id if business else None
    with database(system) as session, broker(system) if bus else nullcontext() as connection:
        try:
            orders = search.search(session, order, account_id=account_id, connection=connection)
        except NotReadToTheEndError as error:
            stop(f"The journal cannot be read ({error}). What is recorded is found with --no-bus.")
        if connection is not None and not orders and orders.order_ids and not is_id(order.strip()):
            search.waiting(session, orders, connection)
        _report_gaps(orders)
        if not orders and not orders.is_of_all_days:
            say(OF_LATELY)
        if not orders.are_all_businesses:
            say("There was no time to search every business: name one by --business.")
        order_id = _chosen([found.order_id for found in orders], order)
        found = None
        if order_id is not None:
            try:
                found = trail.order_trail(
                    session, order_id, account_id=account_id, connection=connection
                )
            except BusyError as error:
                stop(str(error))
    # Printed outside of `broker()`, which would report a closed pipe as a broker error.
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


def _report_gaps(found: search.Results | OrderTrail) -> None:
    if not found.are_all_requests:
        say(requests.NOT_WHOLE)
    if not found.is_whole:
        say(NOT_WHOLE)


def waiting_table(waiting: tuple[Waiting, ...]) -> Table:
    """Return a table of waiting messages."""
    table = Table("waits in", "since", "type", "tries", "reason")
    for message in waiting:
        tries = str(message.attempts or "")
        since = local(message.since)
        table.add_row(message.place, since, message.type, tries, message.reason)
    return table


def _chosen(ids: list[UUID], text: str) -> UUID | None:
    """Return the id of the only order; None if there are several."""
    if len(ids) > 1:
        return None
    if ids:
        return ids[0]
    try:
        return UUID(text.strip())  # not recorded, but possibly waiting
    except ValueError:
        stop(f"No order is known by {text}.")


def _list(orders: Sequence[search.Found], as_json: bool) -> None:
    found = orders[: search.AT_MOST]
    if as_json:
        print_json(found)
    else:
        table = Table("accepted", "number", "order", "company", "customer", "status")
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
        metadata = ", ".join(f"{name}: {value}" for name, value in found.metadata.items())
        console.print(metadata, highlight=False, markup=False)
    table = Table("when", "what", "", "by", "event")
    for step in found.steps:
        at = step.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
        table.add_row(at, step.what, step.text, step.service, str(step.event_id or ""))
    console.print(table)
    if found.is_cut:
        say("Older states and emails are left out.")
    if found.waiting:
        console.print(waiting_table(found.waiting))
    _report_gaps(found)
    if found.is_whole and not found.waiting and found.waiting is not None:
        say("Nothing waits for it.")
