"""Explain an error of the broker: whether it is a refusal, and what to do about it.

Both libraries put the reply code into the message, pika after wrapping the error in others, so it
is parsed from there (AMQP 0-9-1, 1.2, and RabbitMQ, "Access Control").
"""

import re
from dataclasses import dataclass

_CODE = re.compile(r"""\((\d{3})[,)] ['"]?(.*)""")
_DECLARE = "`python -m shared.bus.declare`"
LENGTH = 300


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explained error.

    Attributes:
        kind: the reply code, or the error's class; repeated errors of a kind are logged less.
        is_refusal: whether a person has to change something; else the broker is unreachable.
        sentence: what happened, in the broker's words if it gave any, and what to do.
    """

    kind: str
    is_refusal: bool
    sentence: str


def explain(error: BaseException) -> Explanation:
    """Explain an error of kombu, py-amqp, pika or the system."""
    text = " ".join(str(error).split())
    found = _CODE.search(text)
    code, said = (int(found[1]), found[2].rstrip("\"')")) if found else (0, text)
    said = said[:LENGTH] or type(error).__name__
    advice = _advice(code, said)
    kind = str(code or type(error).__name__)
    return Explanation(kind, bool(advice), f"{said}. {advice}" if advice else said)


def _advice(code: int, said: str) -> str:
    """Return what to do about a refusal; empty for errors that pass by themselves."""
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
