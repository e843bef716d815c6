"""The proof's own business, which registers, proves its address and applies like any other.

An operator approves it once on the KYC desk. It has only the rights of a business, and uses only
the API and the emails it receives.
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
"""KYC states in which a business may apply again."""


class UnprovedError(Exception):
    """An order was not proved.

    Args:
        step: the step that failed.
        sentence: the reason.
    """

    def __init__(self, step: str, sentence: str) -> None:
        super().__init__(sentence)
        self.step = step


@dataclass(frozen=True, slots=True)
class Secret:
    """The business's id and its secret in both forms, `whsk_...` and `whsec_...`."""

    account_id: str
    key: str
    standard: str


class Business:
    """The business, signed in to the API.

    Args:
        http: a client of the API, with its prefix.
        sink: receives its emails.
        password: its password and its address are derived from this one. Another makes another
            business, which an operator has to approve.
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
        """Return the secret to sign with; signs in and applies for KYC when needed.

        Raises:
            UnprovedError: the business has no secret, is not approved or cannot sign in.
            httpx.HTTPError: the API does not answer.
        """
        answer = self._get("/webhook/secret/")
        if answer.status_code == 403:
            self._apply()
        if answer.status_code != 200:
            raise UnprovedError("secret", f"it has no webhook secret: {describe(answer)}")
        found = answer.json()
        return Secret(self._tokens["id"], found["secret_key"], found["signing_secret"])

    def has(self, order_id: str) -> bool:
        """Return whether an order of the business is recorded."""
        return self._get(f"/orders/{order_id}/").status_code == 200

    def _apply(self) -> None:
        """Apply for KYC, also after a rejection, and raise `UnprovedError` with the state."""
        answer = self._get("/kyc/")
        if answer.status_code == 404 or answer.json().get("status") in _AGAIN:
            facts = {
                "business_registration_number": self._number,
                "business_address": "It is nobody: its orders prove that all parts work.",
                "contact_person_details": "The operators of this system",
            }
            answer = self._http.post("/kyc/", json=facts, headers=self._signed_in())
        status = answer.json().get("status", describe(answer))
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
            raise UnprovedError("sign in", f"its business cannot sign in: {describe(answer)}")
        self._tokens = answer.json()

    def _prove_address(self) -> None:
        text = self._sink.wait(self.email, CODE_SECONDS)
        found = re.search(r"\b\d{6}\b", text or "")
        if found is None:
            raise UnprovedError("code", "no email with a code came for its business")
        proof = {"email": self.email, "otp": found[0]}
        self._http.post("/users/verify-otp/", json=proof)


def describe(answer: httpx.Response) -> str:
    """Return a response's status and error code in one line."""
    try:
        code = answer.json()["code"]
    except (ValueError, KeyError, TypeError):
        code = ""
    return f"{answer.status_code} {code}".strip()
