"""The proof's own business: it registers, proves its address and applies as every other does.

An operator approves it, once, on the KYC desk. It has no rights but those of a business: all that
it knows it is told by the API and by the emails that reach it.
"""

import hashlib
import re
from dataclasses import dataclass

import httpx

from services.proof.sink import Sink
from shared.synthetic import DOMAIN

CODE_SECONDS = 60.0
NAME = "Order Fellow's standing proof"
_AGAIN = ("rejected", "revoked", "incomplete")
"""Where a business applies anew."""


class UnprovedError(Exception):
    """An order did not go the whole way.

    Args:
        step: where it ended.
        sentence: why.
    """

    def __init__(self, step: str, sentence: str) -> None:
        super().__init__(sentence)
        self.step = step


@dataclass(frozen=True, slots=True)
class Secret:
    """What the business signs with: `whsk_...` and `whsec_...`, and whose it is."""

    account_id: str
    key: str
    standard: str


class Business:
    """The business, signed in.

    Args:
        http: a client of the API, with its prefix.
        sink: where its emails come.
        password: what it makes its own password of. Another one makes it another business, which
            an operator has to approve.
    """

    def __init__(self, http: httpx.Client, sink: Sink, password: str) -> None:
        digest = hashlib.sha256(f"standing proof {password}".encode()).hexdigest()
        self.email = f"business-{digest[:12]}@{DOMAIN}"
        self._number = f"PROOF-{digest[:12]}"
        self._password = hashlib.sha256(f"sign in {digest}".encode()).hexdigest()
        self._http = http
        self._sink = sink
        self._tokens: dict[str, str] = {}

    def secret(self) -> Secret:
        """The secret to sign with.

        Raises:
            UnprovedError: it has none.
        """
        answer = self._get("/webhook/secret/")
        if answer.status_code == 403:
            self._apply()
        if answer.status_code != 200:
            raise UnprovedError("secret", f"it has no webhook secret: {told(answer)}")
        found = answer.json()
        return Secret(self._tokens["id"], found["secret_key"], found["signing_secret"])

    def has(self, order_id: str) -> bool:
        """Whether an order of it is in the books."""
        return self._get(f"/orders/{order_id}/").status_code == 200

    def _apply(self) -> None:
        """Apply, also where it was refused: nobody else would ever send its application again."""
        answer = self._get("/kyc/")
        if answer.status_code == 404 or answer.json().get("status") in _AGAIN:
            facts = {
                "business_registration_number": self._number,
                "business_address": "It is nobody: its orders prove that all parts work.",
                "contact_person_details": "The operators of this system",
            }
            answer = self._http.post("/kyc/", json=facts, headers=self._signed_in())
        status = answer.json().get("status", told(answer))
        raise UnprovedError("approval", f"its business is {status}: decide on it on the KYC desk")

    def _get(self, path: str) -> httpx.Response:
        if not self._tokens:
            self._sign_in()
        answer = self._http.get(path, headers=self._signed_in())
        if answer.status_code == 401:
            refreshed = self._http.post(
                "/users/auth/refresh/", json={"refresh": self._tokens["refresh"]}
            )
            self._tokens = {}
            if refreshed.status_code == 200:
                self._tokens = refreshed.json()
            else:
                self._sign_in()
            answer = self._http.get(path, headers=self._signed_in())
        return answer

    def _signed_in(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens['access']}"}

    def _sign_in(self) -> None:
        who = {"email": self.email, "password": self._password}
        answer = self._http.post("/users/auth/login/", json=who)
        code = "" if answer.status_code == 200 else answer.json().get("code")
        if code in ("invalid_credentials", "email_not_verified"):
            self._sink.forget(self.email)
            if code == "invalid_credentials":
                self._http.post("/users/auth/register/", json=who | {"company_name": NAME})
            else:
                self._http.post("/users/request-otp/", json={"email": self.email})
            self._prove_address()
            answer = self._http.post("/users/auth/login/", json=who)
        if answer.status_code != 200:
            raise UnprovedError("sign in", f"its business cannot sign in: {told(answer)}")
        self._tokens = answer.json()

    def _prove_address(self) -> None:
        text = self._sink.wait(self.email, CODE_SECONDS)
        found = re.search(r"\b\d{6}\b", text or "")
        if found is None:
            raise UnprovedError("code", "no email with a code came for its business")
        proof = {"email": self.email, "otp": found[0]}
        self._http.post("/users/verify-otp/", json=proof)


def told(answer: httpx.Response) -> str:
    """What an answer says, in one line."""
    try:
        code = answer.json()["code"]
    except (ValueError, KeyError, TypeError):
        code = ""
    return f"{answer.status_code} {code}".strip()
