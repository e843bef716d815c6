"""What an error of the broker's means: whether it refuses us, why, and what somebody has to do.

Both libraries put the reply code into the text, pika after it has wrapped the error in others; so
it is read from there (AMQP 0-9-1, 1.2, and RabbitMQ, "Access Control").
"""

import re
from dataclasses import dataclass

_CODE = re.compile(r"""\((\d{3})[,)] ['"]?(.*)""")
_DECLARE = "`python -m shared.bus.declare`"
LENGTH = 300


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with a connection.

    Attributes:
        kind: the reply code, or the error's class; what is told once need not be told again.
        is_refusal: whether it stays so until somebody changes something. Else the broker is away.
        sentence: what happened, in the broker's words where it said any, and what to do.
    """

    kind: str
    is_refusal: bool
    sentence: str


def explain(error: BaseException) -> Trouble:
    """What an error of kombu's, py-amqp's, pika's or the system's means."""
    text = " ".join(str(error).split())
    found = _CODE.search(text)
    code, said = (int(found[1]), found[2].rstrip("\"')")) if found else (0, text)
    said = said[:LENGTH] or type(error).__name__
    advice = _advice(code, said)
    kind = str(code or type(error).__name__)
    return Trouble(kind, bool(advice), f"{said}. {advice}" if advice else said)


def _advice(code: int, said: str) -> str:
    """What to do about a refusal; nothing for what passes by itself."""
    if code == 403 and "ogin" in said:
        return (
            "Sign in with another password: what AMQP_URL has must be what SERVICE_PASSWORDS had "
            f"at the last {_DECLARE}."
        )
    if code == 403:
        return (
            f"The user of AMQP_URL lacks a right: run {_DECLARE} of this version as the "
            "administrator, with RABBITMQ_MANAGEMENT_URL and SERVICE_PASSWORDS."
        )
    if code == 404:
        return f"The topology is not declared: run {_DECLARE} as the administrator."
    if code == 406 and "inequivalent" in said:
        return (
            f"What stands there is of another version: empty it, delete it, and run {_DECLARE}. "
            "(In a checkout, `make clean` removes all data.)"
        )
    if code == 530:
        return "Check the virtual host in AMQP_URL, and that its user may use it."
    return ""
