"""Facts about orders, as the recorder writes them."""

from collections.abc import Iterator

from bench.load import orders
from shared.bus.contract.events import OrderRecorded, TrackingStatus
from shared.bus.contract.message import Message, message_for
from shared.ids import new_id


def recorded(count: int) -> Iterator[Message]:
    """`order.recorded`, each about another order and for another customer."""
    account = new_id()
    for number in range(count):
        order_id = new_id()
        fact = OrderRecorded(
            order_id=order_id,
            account_id=account,
            company_name="Kettle & Co",
            customer_name=orders.name(number),
            customer_email=orders.email(number),
            item_summary=orders.item_summary(number),
            address=orders.address(number),
            tracking_status=TrackingStatus.PENDING,
        )
        yield message_for(fact, source="services.orders", correlation_id=order_id)
