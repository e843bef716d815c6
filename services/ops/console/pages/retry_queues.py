"""The page of the retry ladder: failed messages, and when they are tried again."""

from collections import Counter

from sqlalchemy.orm import Session

from services.ops.console.web.page import Page, Visit
from services.ops.dead_letters import retry_queue
from services.ops.users import queue_rights
from shared.bus.contract import topology
from shared.web.mount import Result
from shared.web.results import View

SHOWN = 200


def show(session: Session, visit: Visit) -> Result:
    """Show all messages in delay queues, or those of one work queue."""
    wanted = visit.query.get("queue", "")
    with visit.system.broker(session) as connection:
        found = retry_queue.waiting(connection)
    fitting = (found.of(wanted) if wanted else found).messages
    about = {
        "path": "/dead",
        "queue": wanted,
        "by_queue": sorted(Counter(message.queue for message in found.messages).items()),
        "mine": {
            queue.name
            for queue in topology.WORK_QUEUES
            if not queue_rights.lacking(visit.user, queue_rights.of_queues([queue.name]))
        },
        "alone": found.alone,
        "unseen": found.unseen,
        "total": len(fitting),
        "messages": fitting[:SHOWN],
    }
    return View("ladder.html", about)


PAGES = (Page("GET", "/ladder", "watch", show),)
