"""Every error `code` that the API answers with: what caused it, and what cures it.

The one table behind the docs page. A test compares it with what the routes say they answer: a new
code needs a row here.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One stable code.

    Attributes:
        statuses: the HTTP statuses that it comes with.
        cause: what has happened, in a sentence.
        cure: what to do about it.
        is_passing: whether the same request may work later, unchanged.
    """

    statuses: Sequence[int]
    cause: str
    cure: str
    is_passing: bool = False


_SEND_AGAIN = (
    "Wait for `Retry-After`, then send the same request again. Where `error` says that it is not "
    "known whether the order was stored, it may have been: with an `order_number`, or the same "
    "Idempotency-Key or webhook-id, it counts once."
)

CODES: dict[str, ErrorCode] = {
    # A sender's.
    "missing_authentication": ErrorCode(
        [401],
        "A header that the signature scheme needs is not there, or is empty; `faults` says which, "
        "and whether those of the other scheme, or of another system, are there.",
        "Send `X-API-Key` and `X-Webhook-Signature` or, by Standard Webhooks, `webhook-id`, "
        "`webhook-timestamp` and `webhook-signature`. A proxy in between may have removed them; "
        "header names may be in any case.",
    ),
    "invalid_api_key": ErrorCode(
        [401],
        "The key is unknown or was revoked, or the header was sent twice.",
        "Fetch the secret again with `GET /webhook/secret/` and send the whole of it, `whsk_` "
        "included, without quotes or white space.",
    ),
    "invalid_signature": ErrorCode(
        [401],
        "The signature is not that of the bytes that came, or the account in the path is "
        "another's: it is the `id` that a sign-in answers with, and in the portal under Shops.",
        "Sign the very bytes you send: serialise once, sign that, send that. The signature is the "
        "hexadecimal HMAC-SHA256 under the whole `whsk_` string; by Standard Webhooks let its "
        "library make it from `whsec_…`. WooCommerce and Shopify sign by themselves, in base64: "
        "WooCommerce under the `whsk_` string that is pasted there, Shopify under the secret that "
        "you gave us. `POST /webhooks/test/` says what differs.",
    ),
    "invalid_timestamp": ErrorCode(
        [401],
        "`webhook-timestamp` is not within five minutes of the server's clock, which `server_time` "
        "in the answer shows.",
        "Send whole seconds since 1970, set your clock, and make a new timestamp and signature for "
        "each try, under the same `webhook-id`.",
    ),
    "secret_expired": ErrorCode(
        [401],
        "The secret you signed with is past its end, and a new one was made.",
        "Fetch the new one with `GET /webhook/secret/`, configure it, and send the order again.",
    ),
    "address_not_allowed": ErrorCode(
        [403],
        "The request is rightly signed, and your allowlist does not have its address.",
        "Send from one that it has, or set the list anew with `PUT /webhook/allowlist/`.",
    ),
    "scheme_not_allowed": ErrorCode(
        [403],
        "The request is rightly signed by `X-API-Key`, or by a platform's own scheme, and your "
        "account takes Standard Webhooks only.",
        "Sign by Standard Webhooks, or take the other scheme again with `PUT /webhook/schemes/`.",
    ),
    "invalid_idempotency_key": ErrorCode(
        [400],
        "`Idempotency-Key` is empty, longer than 255 characters, has spaces or other than visible "
        "ASCII, or stands there twice.",
        "Send one key for each event, such as a UUID, and the same for each try.",
    ),
    "idempotency_key_in_use": ErrorCode(
        [409],
        "Another order under the same `Idempotency-Key` or `webhook-id` is being accepted now.",
        "Send each order under a key of its own, and the same order under the same key.",
    ),
    "idempotency_key_reused": ErrorCode(
        [422],
        "Another order was accepted under the same `Idempotency-Key` or `webhook-id`; `order_id` "
        "is its id. The first order stays as it is.",
        "Send each order under a key of its own. To say what became of the first, send an update.",
    ),
    "unsupported_media_type": ErrorCode(
        [415],
        "The body is compressed, or its `Content-Type` is not JSON.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "incomplete_body": ErrorCode(
        [400],
        "The connection ended before the body did: nothing was done. In the request log also for a "
        "body that did not arrive in time, which is answered with `request_timeout`.",
        "Send the same request again, over a better line or without the proxy that gave up. The "
        "secret is not the cause.",
    ),
    "body_too_large": ErrorCode(
        [413],
        "The body is larger than allowed: by default 256 KiB for an order, 1 MiB for a delivery of "
        "WooCommerce or Shopify, 512 KiB for a request that is to be verified, 64 KiB elsewhere.",
        "Send one order a request, and shorter texts.",
    ),
    "rate_limited": ErrorCode(
        [429],
        "Your account sends faster than its limit, or your address was refused too often, or there "
        "were too many tries to sign in.",
        "Wait for as many seconds as `Retry-After` says, then send the same request again.",
        is_passing=True,
    ),
    "overloaded": ErrorCode(
        [503],
        "Too many orders of all senders are on their way at this moment; elsewhere, too much else "
        "is being done, such as comparing passwords.",
        _SEND_AGAIN,
        is_passing=True,
    ),
    "unavailable": ErrorCode(
        [503],
        "Neither the queue nor the database has confirmed the order in time, or a signature could "
        "not be checked.",
        _SEND_AGAIN,
        is_passing=True,
    ),
    # Everybody's.
    "invalid_body": ErrorCode(
        [400],
        "The body is no JSON in UTF-8, or members of it are missing, too long or of another type. "
        "`faults` has all that is wrong, a sentence each, with the path of the member, such as "
        "`$.customer_details.email`; the first says so where it looks like another system's body.",
        "Correct those members. Sending the same body again will not help. What may be left out "
        "may be `null` too; white space around an address is removed, its domain written in ASCII.",
    ),
    "invalid_query": ErrorCode(
        [400],
        "A parameter of the query string is invalid; `faults` names each, and what it must be.",
        "Mend it. A `cursor` is only ever the `next` of the page before; a time has a zone, such "
        "as `2026-11-24T03:00:00Z`.",
    ),
    "bad_request": ErrorCode(
        [400],
        "What came is no HTTP request that can be read.",
        "Use an HTTP library instead of building the request by hand.",
    ),
    "not_found": ErrorCode(
        [404],
        "There is nothing at this path: it is compared letter by letter, with single slashes.",
        "Compare it with the paths on this page; they all begin with `/api/v1/`.",
    ),
    "method_not_allowed": ErrorCode(
        [405],
        "The path is right, and does not take this method.",
        "Use one of those in the `Allow` header.",
    ),
    "request_timeout": ErrorCode(
        [408],
        "The request took longer to arrive than the server waits: ten seconds, unless whoever runs "
        "it has set another time (`REQUEST_SECONDS`).",
        "Send head and body at once; a `Content-Length` that is larger than the body makes the "
        "server wait. Then send it again.",
        is_passing=True,
    ),
    "url_too_long": ErrorCode(
        [414],
        "The URL, path and query together, is longer than 8,190 bytes.",
        "Send what is that long in a body.",
    ),
    "head_too_large": ErrorCode(
        [431],
        "There are more than 100 header fields, one of more than 8,190 bytes, or more than 32 KiB "
        "in all. The connection is closed.",
        "Leave out what is not needed. A client that adds a field at each try, or a proxy that "
        "passes a browser's cookies on, makes such heads.",
    ),
    "unknown_transfer_coding": ErrorCode(
        [501],
        "`Transfer-Encoding` names another coding than `chunked`, such as `gzip`.",
        "Send the body as it is, with a `Content-Length` or chunked.",
    ),
    "internal_error": ErrorCode(
        [500],
        "Something broke on our side, and was logged.",
        "Send it again once; if it stays, tell us the time and the path.",
        is_passing=True,
    ),
    "database_unavailable": ErrorCode(
        [503],
        "The database does not answer.",
        "Wait for `Retry-After`, then send the same request again.",
        is_passing=True,
    ),
    # A business's.
    "not_signed_in": ErrorCode(
        [401],
        "The access token is missing, expired (after ten minutes), no access token of ours, or its "
        "session has ended.",
        "Send `Authorization: Bearer <access>`. Get a new one with your refresh token at "
        "`POST /users/auth/refresh/`, or sign in again.",
    ),
    "invalid_credentials": ErrorCode(
        [401],
        "The email address or the password is wrong; which of them is not told.",
        "Check both. An address that was never registered answers the same.",
    ),
    "invalid_refresh_token": ErrorCode(
        [401],
        "The refresh token was used before, has expired (after a day), or its session has ended: "
        "by a logout, after thirty days, or because a used token of it came a second time.",
        "Sign in again. Each refresh token works once: keep the one that came with the answer, and "
        "let one of your processes renew it, not two.",
    ),
    "session_not_found": ErrorCode(
        [404],
        "You have no session with this id, or it has ended.",
        "`GET /users/sessions/` lists those that have not.",
    ),
    "email_not_verified": ErrorCode(
        [403],
        "The password is right, and the email address is not proved yet.",
        "Send the code from the email to `POST /users/verify-otp/`; ask for a new one at "
        "`POST /users/request-otp/`.",
    ),
    "account_blocked": ErrorCode(
        [403],
        "Our staff has blocked the account: nobody signs in, and no webhook of it is taken.",
        "Write to us; the email that told of it has the reason. Everything works again once it is "
        "unblocked.",
    ),
    "wrong_password": ErrorCode(
        [403],
        "What changes an account needs its password again, and this is not it.",
        "Send the account's password; where it is lost, `POST /users/password/reset-code/`.",
    ),
    "weak_password": ErrorCode(
        [400],
        "The password is one that is tried first, or is the account's own address or name, or too "
        "long. `faults` has every reason, a sentence each.",
        "Choose another one of 8 to 128 characters: a few words that do not belong together are "
        "good. Nothing else is asked of it.",
    ),
    "invalid_otp": ErrorCode(
        [400],
        "The code is none that was mailed for a registration of this address that waits; or the "
        "password or id beside it is that of none that waits.",
        "Take the six digits from the newest email. Five wrong tries lock it.",
    ),
    "several_registrations": ErrorCode(
        [400],
        "The address was registered several times, and each registration has its own code; or the "
        "code was asked for from another network without `registration_id`.",
        "Send the password you registered with beside the code, or `registration_id`, the id that "
        "your registration was answered with. The others end.",
    ),
    "otp_expired": ErrorCode(
        [400],
        "The code is older than ten minutes.",
        "Ask for a new one at `POST /users/request-otp/`.",
    ),
    "otp_locked": ErrorCode(
        [400],
        "The code was tried wrongly five times, so it works no more.",
        "Ask for a new one at `POST /users/request-otp/`.",
    ),
    "kyc_already_pending": ErrorCode(
        [400],
        "Your KYC application is being looked at.",
        "Wait for the email with the decision; `GET /kyc/` shows where it stands.",
    ),
    "kyc_already_approved": ErrorCode(
        [400],
        "Your KYC is approved already.",
        "Nothing more is needed: fetch your secret with `GET /webhook/secret/`.",
    ),
    "kyc_not_found": ErrorCode(
        [404],
        "You have not sent a KYC application yet.",
        "Send one with `POST /kyc/`.",
    ),
    "kyc_approval_required": ErrorCode(
        [403],
        "Webhooks are for businesses whose KYC is approved, and yours is not, or no more.",
        "Look at `GET /kyc/`: send an application, wait for the decision, or send another after a "
        "rejection.",
    ),
    "secret_not_ready": ErrorCode(
        [404],
        "There is no active secret: the approval is less than a second old, or all were revoked.",
        "Ask again after a second; after a revocation make one with `POST /webhook/secret/`.",
        is_passing=True,
    ),
    "invalid_public_key": ErrorCode(
        [400],
        "What was sent as a public key is none, or one that must not be used; the sentence says "
        "why, and repeats nothing of it.",
        "Send `whpk_` and the standard base64 of the 32 bytes of an Ed25519 public key. A private "
        "key that was sent by mistake is to be replaced.",
    ),
    "public_key_known": ErrorCode(
        [409],
        "The account has this public key already.",
        "Nothing: it signs for you. `GET /webhook/public-keys/` lists your keys.",
    ),
    "too_many_public_keys": ErrorCode(
        [409],
        "The account has three public keys, which is all that it may have.",
        "Remove one with `DELETE /webhook/public-keys/{key_id}/`.",
    ),
    "too_many_public_keys_a_day": ErrorCode(
        [429],
        "Twenty public keys were added within 24 hours.",
        "Come back when `Retry-After` says, and add keys less often: none has an end.",
        is_passing=True,
    ),
    "public_key_not_found": ErrorCode(
        [404],
        "The account has no public key of this id, or it was removed.",
        "List those that there are with `GET /webhook/public-keys/`.",
    ),
    "no_test_secret": ErrorCode(
        [404],
        "The account has no test secret: none was made yet, or test mode was ended.",
        "Make one with `POST /webhook/test-secret/`.",
    ),
    "too_many_secrets": ErrorCode(
        [429],
        "Your secret was replaced twenty times within 24 hours, or you gave us twenty of a "
        "platform.",
        "Fetch the newest one with `GET /webhook/secret/`: it works. Another can be made when "
        "`Retry-After` says.",
        is_passing=True,
    ),
    "platform_unknown": ErrorCode(
        [404],
        "The path names no platform that makes the secret it signs with, as Shopify does.",
        "Write `/webhook/secret/shopify/`. WooCommerce signs with your own secret: paste that "
        "there.",
    ),
    "given_secret_not_found": ErrorCode(
        [404],
        "You have given us no secret of that platform and `shop`, or it works no more.",
        "`GET` the same path lists those that work, each with its `shop`.",
    ),
    "too_many_shops": ErrorCode(
        [409],
        "You have given us the secrets of ten shops of one platform.",
        "Remove one that is not used with `DELETE`, or use another account for further shops.",
    ),
    "secret_of_both_modes": ErrorCode(
        [409],
        "You gave us this secret for another shop, where one of the two is a development shop "
        "(`is_test`) and the other is not.",
        "Give both the same `is_test`, remove the other shop with `DELETE`, or have the platform "
        "make another secret.",
    ),
    "invalid_network": ErrorCode(
        [400],
        "A member of the allowlist is no network in CIDR notation; `error` names it.",
        "Write it like `203.0.113.0/24` or `2001:db8::/48`, with no bits set behind the prefix.",
    ),
    "receipt_not_found": ErrorCode(
        [404],
        "You have no accepted request with this event id in the request log.",
        "Use the event id of the receipt. That of a request just answered is there a second later.",
    ),
    "invalid_display_name": ErrorCode(
        [400],
        "The name that emails about your orders are to bear is refused; the sentence says why.",
        "Choose one of up to 60 characters, as your customers know you, without signs that are not "
        "seen and without the look of an address.",
    ),
    "unknown_language": ErrorCode(
        [400],
        "Emails are not written in this language.",
        "Choose one of those that `GET /users/locale/` has in `languages`.",
    ),
    "unknown_time_zone": ErrorCode(
        [400],
        "The IANA database has no time zone of this name.",
        "Take its name to the letter, such as `Africa/Lagos` or `Europe/Paris`.",
    ),
    "preview_not_found": ErrorCode(
        [404],
        "There is no email of this name to be previewed.",
        "Take a name that `GET /email-previews/` shows.",
    ),
    "suppression_not_found": ErrorCode(
        [404],
        "Your account has no suppression with this id, or it was lifted.",
        "Take an id that `GET /suppressions/` shows.",
    ),
    "customer_unsubscribed": ErrorCode(
        [409],
        "The customer has left by the link in an email, and that is not yours to take back.",
        "Nothing: the customer may come back by the link in any of your emails.",
    ),
    "order_not_found": ErrorCode(
        [404],
        "You have no order with this id. Another account's order answers the same.",
        "Use the `order_id` of the 201. An accepted order takes a moment to be recorded.",
    ),
    "link_not_found": ErrorCode(
        [404],
        "The link of a customer's email is not whole, is too old for the keys of today, was ended "
        "by its seller, or its order was removed.",
        "Open the link as it stands in the email. What became of the order its seller knows.",
    ),
}
