"""What the bodies of this service's routes are made of."""

from typing import Annotated

import msgspec

from shared.security import passwords

# Counted after normalisation, and all its faults told at once, so what is here is only a bound.
Password = Annotated[
    str,
    msgspec.Meta(
        max_length=1_024,
        extra_json_schema={"minLength": passwords.MIN_LENGTH, "maxLength": passwords.MAX_LENGTH},
    ),
]
Given = Annotated[str, msgspec.Meta(max_length=1_024)]
Code = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{6}(?![\s\S])", description="the six digits from the email")
]


DeviceToken = Annotated[
    str,
    msgspec.Meta(
        max_length=200,
        description="`device_token` of an earlier sign-in; strangers' guesses do not hold it up",
    ),
]


class Detail(msgspec.Struct, kw_only=True):
    """A sentence."""

    detail: str
