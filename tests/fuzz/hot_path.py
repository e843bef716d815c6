"""Coverage-guided fuzzing of what reads a stranger's bytes before anything is known about them.

`make fuzz` runs it (FUZZ_SECONDS=60). Whatever comes, the order's body is read or refused with a
`BodyError` that can be encoded, and a message from the bus is understood or `Malformed`; nothing
else may be raised. What is accepted must survive the way to the consumer.
"""

import sys
import time
import uuid

import atheris

with atheris.instrument_imports(include=["services", "shared", "email", "uuid"]):
    from services.ingress.webhook import hmac_hex, standard_webhooks
    from services.kyc.parsing import decode_decision
    from shared.bus.contract.delivery import RawDelivery, decode_by_type
    from shared.bus.contract.errors import Malformed
    from shared.bus.contract.events import EVENT_TYPES, decode
    from shared.intake import bodies
from stack.folders import hold_venv

ACCOUNT = uuid.UUID(int=7)
TYPES = sorted(EVENT_TYPES)


def one_input(data: bytes) -> None:
    """One round; the first byte chooses the parser."""
    choice, body = data[:1], data[1:]
    if not choice:
        return
    match choice[0] % 5:
        case 0:
            try:
                _, message = bodies.read(body, ACCOUNT, time.time(), None)
            except bodies.BodyError as error:
                str(error).encode()
            else:
                decode(message.type, message.body)
        case 1:
            key, _, rest = body.partition(b"\n")
            signature, _, signed = rest.partition(b"\n")
            assert hmac_hex.matches(key, signed, signature) == (
                signature.lower() == hmac_hex.sign(key, signed)
            )
        case 2:
            type_ = TYPES[len(body) % len(TYPES)]
            headers = {"ce-time": body[:30].decode("latin-1"), "x-attempt": body[:1]}
            incoming = RawDelivery(
                body, {"type": type_, "message_id": repr(body[:8])}, headers, "x"
            )
            try:
                decode_by_type(incoming)
            except Malformed:
                return
        case 3:
            try:
                decode_decision(RawDelivery(body, {}, {}, "commands"))
            except Malformed:
                return
        case 4:
            header, _, signed = body.partition(b"\n")
            given = standard_webhooks.listed(header)
            right = standard_webhooks.sign(b"key", signed)
            assert standard_webhooks.matches(b"key", signed, given) == (right in given)
            standard_webhooks.is_id(header)
            standard_webhooks.is_current(header, 0.0)


def main() -> None:
    """Fuzz, with libFuzzer's own arguments."""
    hold_venv()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
