"""`fellow retention`: retention periods, and what would be removed now."""

from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ops.cli.terminal import (
    MISUSED,
    AsJson,
    Table,
    broker,
    database,
    find_system,
    local,
    print_json,
    results,
    say,
    stop,
)
from services.ops.dead_letters import retention as dead_retention
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db import retention
from shared.db.models import WebhookRequest
from shared.db.session import time_by_both_clocks


def show(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count what is beyond the RETENTION_..._DAYS of this environment, and would be removed now."""
    if not dry_run:
        stop("The services remove expired data themselves: say --dry-run to count it.", MISUSED)
    system = find_system()
    config = system.settings
    with database(system) as session, broker(system) as connection:
        found = [
            _line(p.name, p.days(config), retention.count(session, p, p.days(config)),
                  retention.oldest(session, p))
            for p in retention.PLACES
        ]  # fmt: skip
        found.append(_of_the_request_log(session, config))
        days = config.retention_dead_letters_days
        as_of = time_by_both_clocks(session)
        letters = [dead_retention.over(connection, q, days, as_of) for q in topology.WORK_QUEUES]
        since = dead_retention.oldest(connection)
        line = _line(dead_retention.PLACE, days, sum(count for count, _ in letters), since)
        found.append(line | {"is_whole": all(is_whole for _, is_whole in letters)})
    if as_json:
        print_json(found)
        return
    table = Table("place", "days", "would go now", "oldest")
    for one in found:
        kept = str(one["days"] or "unlimited")
        over = f"{'' if one['is_whole'] else 'at least '}{one['over']}"
        table.add_row(one["place"], kept, over, local(one["oldest"]))
    results().print(table)
    if not all(one["is_whole"] for one in found):
        say("Not all dead letters could be read: another tool holds some, or there are too many.")


def _line(place: str, days: int, over: int, oldest: datetime | None) -> dict[str, Any]:
    return {"place": place, "days": days, "over": over, "oldest": oldest, "is_whole": True}


def _of_the_request_log(session: Session, config: Settings) -> dict[str, Any]:
    days = config.retention_request_log_days
    at = WebhookRequest.at
    over = 0
    if days:
        # The request log is removed by whole days.
        ended = retention.before(session, days)
        midnight = ended.replace(hour=0, minute=0, second=0, microsecond=0)
        count = select(func.count()).select_from(WebhookRequest).where(at < midnight)
        over = session.scalar(count) or 0
    return _line("request_log", days, over, session.scalar(select(func.min(at))))
