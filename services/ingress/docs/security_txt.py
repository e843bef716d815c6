"""`/.well-known/security.txt`: the contact for reports of vulnerabilities (RFC 9116)."""

from datetime import UTC, datetime, timedelta

from falcon.asgi import Request, Response

from shared.config.settings import Settings

PATH = "/.well-known/security.txt"
GOOD_FOR = timedelta(days=180)
"""Less than a year (RFC 9116, 2.5.5)."""


class SecurityTxt:
    """The file, valid from the day of the request.

    Args:
        config: gives `security_contact` and `public_url`.
    """

    def __init__(self, config: Settings) -> None:
        self._contact = config.security_contact
        self._url = f"{config.public_url.rstrip('/')}{PATH}"

    async def on_get(self, _: Request, resp: Response) -> None:
        """Answer with the required fields and `Canonical`."""
        expires = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + GOOD_FOR
        resp.content_type = "text/plain; charset=utf-8"
        resp.text = (
            f"Contact: {self._contact}\n"
            f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}\n"
            "Preferred-Languages: en\n"
            f"Canonical: {self._url}\n"
        )

    on_head = on_get
