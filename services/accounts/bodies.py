"""Field types that the request bodies of this service share."""

from typing import Annotated

import msgspec

from shared.security import passwords

# The real limits apply after normalisation, with all faults in one answer (passwords.faults).
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
        description="`device_token` of an earlier sign-in; exempt from the limits on strangers",
    ),
]


class Detail(msgspec.Struct, kw_only=True):
    """A message for the user."""

    detail: str
