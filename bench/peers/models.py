"""The order, as pydantic sees it: what most would write."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

EMAIL = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+$"


class Customer(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    email: Annotated[str, Field(max_length=254, pattern=EMAIL)]
    phone: Annotated[str, Field(max_length=200)] = ""


class Order(BaseModel):
    customer_details: Customer
    item_summary: Annotated[str, Field(min_length=1, max_length=4_000)]
    address: Annotated[str, Field(min_length=1, max_length=4_000)]
    tracking_status: Literal[
        "PENDING", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED", "CANCELLED"
    ] = "PENDING"

    def as_event(self, order_id: str, account_id: str) -> str:
        return Event(order_id=order_id, account_id=account_id, **dict(self)).model_dump_json()


class Event(Order):
    order_id: str
    account_id: str
