"""What the benchmarks send."""

from uuid import UUID

from bench import filling
from bench.load import facts, orders
from shared.bus.contract.events import decode

ACCOUNTS = [UUID(int=1), UUID(int=2)]
COUNT = 400  # more than any of the lists from which an order is made has entries


def test_an_order_and_the_fact_about_it_are_of_one_customer_and_a_third_is_not_ascii():
    created = [decode(made.type, made.body) for made in filling.new_orders(ACCOUNTS, COUNT)]
    recorded = [decode(fact.type, fact.body) for fact in facts.recorded(COUNT)]
    customers = [order.customer_details for order in created]
    assert [(customer.name, customer.email) for customer in customers] == [
        (fact.customer_name, fact.customer_email) for fact in recorded
    ]
    assert [(order.item_summary, order.address) for order in created] == [
        (fact.item_summary, fact.address) for fact in recorded
    ]
    for texts in ([fact.customer_name for fact in recorded], [f.item_summary for f in recorded]):
        assert sum(not text.isascii() for text in texts) == COUNT // 3
    assert len({orders.email(number) for number in range(COUNT)}) == COUNT
    assert {order.account_id for order in created} == set(ACCOUNTS)
