"""Every error code of the API, with its cause and remedy, for the docs page.

A test compares the table with the errors that the routes declare: a new code needs a row here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One stable code.

    Attributes:
        cause: what happened, in a sentence.
        cure: the remedy.
        is_passing: whether the same request may succeed later, unchanged.
    """

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
        "A header of the signature scheme is missing or empty; `faults` says which, and whether "
        "headers of another scheme or system are present.",
        "Send `X-API-Key` and `X-Webhook-Signature` or, by Standard Webhooks, `webhook-id`, "
        "`webhook-timestamp` and `webhook-signature`. A proxy in between may have removed them; "
        "header names may be in any case.",
    ),
    "invalid_api_key": ErrorCode(
        "The key is unknown or was revoked, or the header was sent twice.",
        "Fetch the secret again with `GET /webhook/secret/` and send the whole of it, `whsk_` "
        "included, without quotes or white space.",
    ),
    "invalid_signature": ErrorCode(
        "The signature is not that of the received bytes, or the path names another account: yours "
        "is the `id` in the answer to a sign-in, and in the portal under Shops.",
        "Sign the very bytes you send: serialise once, sign that, send that. The signature is the "
        "hexadecimal HMAC-SHA256 under the whole `whsk_` string; by Standard Webhooks let its "
        "library make it from `whsec_…`. WooCommerce and Shopify sign by themselves, in base64: "
        "WooCommerce under the `whsk_` string that is pasted there, Shopify under the secret that "
        "you gave us. `POST /webhooks/test/` says what differs.",
    ),
    "invalid_timestamp": ErrorCode(
        "`webhook-timestamp` is not within five minutes of the server's clock, which `server_time` "
        "in the answer shows, or is not in whole seconds since 1970; `faults` says which.",
        "Send whole seconds since 1970, set your clock, and make a new timestamp and signature for "
        "each try, under the same `webhook-id`.",
    ),
    "secret_expired": ErrorCode(
        "The secret you signed with has expired, and a new one was made.",
        "Fetch the new one with `GET /webhook/secret/`, configure it, and send the order again.",
    ),
    "address_not_allowed": ErrorCode(
        "The signature is right, and your allowlist does not contain the request's address.",
        "Send from an address in it, or change it with `PUT /webhook/allowlist/`.",
    ),
    "scheme_not_allowed": ErrorCode(
        "The request is correctly signed by `X-API-Key`, or by a platform's own scheme, and your "
        "account accepts Standard Webhooks only.",
        "Sign by Standard Webhooks, or allow the other schemes again with `PUT /webhook/schemes/`.",
    ),
    "invalid_idempotency_key": ErrorCode(
        "`Idempotency-Key` is empty, longer than 255 characters, has spaces or other than visible "
        "ASCII, or is present twice.",
        "Send one key for each event, such as a UUID, and the same for each try.",
    ),
    "idempotency_key_in_use": ErrorCode(
        "Another order under the same `Idempotency-Key` or `webhook-id` is being accepted now.",
        "Use a separate key for each order, and the same key for each try of one order.",
    ),
    "idempotency_key_reused": ErrorCode(
        "Another order was accepted under the same `Idempotency-Key` or `webhook-id`; `order_id` "
        "is its id. The first order stays as it is.",
        "Use a separate key for each order. To change the first order, send an update.",
    ),
    "unsupported_media_type": ErrorCode(
        "The body is compressed, `Content-Encoding` is no compression, such as a charset, or the "
        "`Content-Type` is not JSON, and `faults` repeats that header.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "incomplete_body": ErrorCode(
        "The connection ended before the body did: nothing was done. In the request log also for a "
        "body that did not arrive in time, which is answered with `request_timeout`.",
        "Send the same request again, over a better line or without the proxy that gave up. The "
        "secret is not the cause.",
    ),
    "body_too_large": ErrorCode(
        "The body is larger than allowed: by default 256 KiB for an order, 1 MiB for a delivery of "
        "WooCommerce or Shopify, 512 KiB for a request to be verified, 64 KiB elsewhere.",
        "Send one order a request, and shorter texts.",
    ),
    "rate_limited": ErrorCode(
        "Your account sends faster than its limit, or your address was refused too often, or there "
        "were too many attempts to sign in.",
        "Wait for the seconds of `Retry-After`, then send the same request again.",
        is_passing=True,
    ),
    "overloaded": ErrorCode(
        "Too many orders of all senders are in flight; on other paths, too much other work is "
        "running, such as the comparison of passwords.",
        _SEND_AGAIN,
        is_passing=True,
    ),
    "unavailable": ErrorCode(
        "Neither the queue nor the database has confirmed the order in time, or a signature could "
        "not be checked, or your secret could not be decrypted.",
        _SEND_AGAIN,
        is_passing=True,
    ),
    # Of every caller.
    "invalid_body": ErrorCode(
        "The body is not JSON in UTF-8, or members of it are missing, too long or of another type. "
        "`faults` lists all that is wrong, a sentence each, with the path of the member, such as "
        "`$.customer_details.email`; the first says if the body looks like another system's.",
        "Correct those members. Sending the same body again will not help. An optional member may "
        "be `null`; white space around an address is removed, its domain written in ASCII. Of a "
        "shop's delivery the request log has the `fault`: check what the shop, or a plugin of it, "
        "writes into that member.",
    ),
    "invalid_query": ErrorCode(
        "A parameter of the query string is invalid; `faults` names each, and what it must be.",
        "Correct it. A `cursor` is the `next` of the page before, unmodified; a time has a zone, "
        "such as `2026-11-24T03:00:00Z`.",
    ),
    "bad_request": ErrorCode(
        "The request is not valid HTTP.",
        "Use an HTTP library instead of building the request by hand.",
    ),
    "not_found": ErrorCode(
        "There is nothing at this path: it is compared letter by letter, with single slashes. Or, "
        "where a shop's webhook is saved, it names no account.",
        "Compare it with the paths on this page; they all begin with `/api/v1/`. `{account_id}` is "
        "the `id` in the answer to a sign-in.",
    ),
    "method_not_allowed": ErrorCode(
        "The path exists, and does not support this method.",
        "Use a method of the `Allow` header.",
    ),
    "request_timeout": ErrorCode(
        "The request took longer to arrive than the server waits: ten seconds, unless its operator "
        "has set another time (`REQUEST_SECONDS`).",
        "Send head and body at once; a `Content-Length` that is larger than the body makes the "
        "server wait. Then send it again.",
        is_passing=True,
    ),
    "url_too_long": ErrorCode(
        "The URL, path and query together, is longer than 8,190 bytes.",
        "Send long values in a body.",
    ),
    "head_too_large": ErrorCode(
        "There are more than 100 header fields, one of more than 8,190 bytes, or more than 32 KiB "
        "in all. The connection is closed.",
        "Leave out the fields that are not needed. The cause may be a client that adds a field at "
        "each try, or a proxy that passes a browser's cookies on.",
    ),
    "unknown_transfer_coding": ErrorCode(
        "`Transfer-Encoding` names another coding than `chunked`, such as `gzip`.",
        "Send the body unencoded, with a `Content-Length` or chunked.",
    ),
    "internal_error": ErrorCode(
        "An error on our side, which was logged.",
        "Send it again once; if the error stays, report the time and the path to us.",
        is_passing=True,
    ),
    "database_unavailable": ErrorCode(
        "The database does not answer.",
        "Wait for `Retry-After`, then send the same request again.",
        is_passing=True,
    ),
    # Of a business.
    "not_signed_in": ErrorCode(
        "The access token is missing, expired (after ten minutes), no access token of ours, or its "
        "session has ended.",
        "Send `Authorization: Bearer <access>`. Get a new one with your refresh token at "
        "`POST /users/auth/refresh/`, or sign in again.",
    ),
    "invalid_credentials": ErrorCode(
        "The email address or the password is wrong; the answer does not say which.",
        "Check both. An address that was never registered gets the same answer.",
    ),
    "invalid_refresh_token": ErrorCode(
        "The refresh token was used before, has expired (after a day), or its session has ended: "
        "by a logout, after thirty days, or because a used token of it was sent again.",
        "Sign in again. Each refresh token works once: keep the new one of each answer, and let "
        "one of your processes renew it, not two.",
    ),
    "session_not_found": ErrorCode(
        "You have no session with this id, or it has ended.",
        "`GET /users/sessions/` lists your sessions.",
    ),
    "email_not_verified": ErrorCode(
        "The password is right, and the email address is not verified yet.",
        "Send the code from the email to `POST /users/verify-otp/`; ask for a new one at "
        "`POST /users/request-otp/`.",
    ),
    "account_blocked": ErrorCode(
        "Our staff has blocked the account: sign-ins and webhooks of it are refused.",
        "Write to us; the email about the block has the reason. Everything works again once it is "
        "unblocked.",
    ),
    "wrong_password": ErrorCode(
        "Changes of an account need its password again, and this one is wrong.",
        "Send the account's password; if it is lost, `POST /users/password/reset-code/`.",
    ),
    "weak_password": ErrorCode(
        "The password is a common one, or is the account's own address or name, or has the wrong "
        "length. `faults` lists every reason, a sentence each.",
        "Choose another one of 8 to 128 characters, such as a few unrelated words. There are no "
        "other rules.",
    ),
    "invalid_otp": ErrorCode(
        "The code was not mailed for a pending registration of this address, or the password or "
        "id beside it belongs to no pending registration.",
        "Send the six digits of the newest email. Five wrong attempts lock the code.",
    ),
    "several_registrations": ErrorCode(
        "The address was registered several times, and each registration has its own code; or the "
        "code was requested from another network without `registration_id`.",
        "Send the password you registered with beside the code, or `registration_id`, the id in "
        "the answer to your registration. The others end.",
    ),
    "otp_expired": ErrorCode(
        "The code is older than ten minutes.",
        "Ask for a new one at `POST /users/request-otp/`.",
    ),
    "otp_locked": ErrorCode(
        "Five wrong codes were tried, so this one is locked.",
        "Ask for a new one at `POST /users/request-otp/`.",
    ),
    "kyc_already_pending": ErrorCode(
        "Your KYC application is being reviewed.",
        "Wait for the email with the decision; `GET /kyc/` shows its state.",
    ),
    "kyc_already_approved": ErrorCode(
        "Your KYC is approved already.",
        "Nothing more is needed: fetch your secret with `GET /webhook/secret/`.",
    ),
    "kyc_not_found": ErrorCode(
        "You have not sent a KYC application yet.",
        "Send one with `POST /kyc/`.",
    ),
    "kyc_approval_required": ErrorCode(
        "Webhooks need an approved KYC, and yours is not approved, or no longer.",
        "Check `GET /kyc/`: send an application, wait for the decision, or send another after a "
        "rejection.",
    ),
    "secret_not_ready": ErrorCode(
        "There is no active secret: the approval is less than a second old, or all were revoked.",
        "Retry after a second; after a revocation make one with `POST /webhook/secret/`.",
        is_passing=True,
    ),
    "invalid_public_key": ErrorCode(
        "The text is not a public key, or is a key that must not be used; `error` says why, and "
        "repeats nothing of it.",
        "Send `whpk_` and the standard base64 of the 32 bytes of an Ed25519 public key. Replace a "
        "private key that you sent by mistake.",
    ),
    "public_key_known": ErrorCode(
        "The account has this public key already.",
        "Nothing to do: it is in use. `GET /webhook/public-keys/` lists your keys.",
    ),
    "too_many_public_keys": ErrorCode(
        "The account has three public keys, the most that it may have.",
        "Remove one with `DELETE /webhook/public-keys/{key_id}/`.",
    ),
    "too_many_public_keys_a_day": ErrorCode(
        "Twenty public keys were added within 24 hours.",
        "Retry after `Retry-After`, and add keys less often: they do not expire.",
        is_passing=True,
    ),
    "public_key_not_found": ErrorCode(
        "The account has no public key with this id, or it was removed.",
        "List your keys with `GET /webhook/public-keys/`.",
    ),
    "no_test_secret": ErrorCode(
        "The account has no test secret: none was made yet, or test mode has ended.",
        "Make one with `POST /webhook/test-secret/`.",
    ),
    "too_many_secrets": ErrorCode(
        "Your secret was replaced twenty times within 24 hours, or you gave us twenty of a "
        "platform.",
        "Fetch the newest one with `GET /webhook/secret/`: it works. Another can be made after "
        "`Retry-After`.",
        is_passing=True,
    ),
    "platform_unknown": ErrorCode(
        "The path names no platform that makes its own secrets, as Shopify does.",
        "Use `/webhook/secret/shopify/`. WooCommerce signs with your own secret: paste that there.",
    ),
    "given_secret_not_found": ErrorCode(
        "You have given us no secret of that platform and `shop`, or it is no longer valid.",
        "`GET` the same path lists the valid ones, each with its `shop`.",
    ),
    "too_many_shops": ErrorCode(
        "You have given us the secrets of ten shops of one platform.",
        "Remove an unused one with `DELETE`, or use another account for further shops.",
    ),
    "secret_of_both_modes": ErrorCode(
        "You gave us this secret for another shop, where one of the two is a development shop "
        "(`is_test`) and the other is not.",
        "Give both the same `is_test`, remove the other shop with `DELETE`, or have the platform "
        "make another secret.",
    ),
    "invalid_network": ErrorCode(
        "A member of the allowlist is not a network in CIDR notation; `error` names it.",
        "Write it like `203.0.113.0/24` or `2001:db8::/48`, with no bits set after the prefix.",
    ),
    "receipt_not_found": ErrorCode(
        "You have no accepted request with this event id in the request log.",
        "Use the event id of the request log. A request appears there a second after its answer.",
    ),
    "invalid_display_name": ErrorCode(
        "The sender name for emails about your orders is refused; `error` says why.",
        "Choose a name that your customers know, of up to 60 characters, without invisible "
        "characters, and not like an address.",
    ),
    "unknown_language": ErrorCode(
        "Emails are not available in this language.",
        "Choose one of `languages` of `GET /users/locale/`.",
    ),
    "unknown_time_zone": ErrorCode(
        "The IANA database has no time zone of this name.",
        "Send an exact name, such as `Africa/Lagos` or `Europe/Paris`.",
    ),
    "preview_not_found": ErrorCode(
        "There is no email preview with this name.",
        "Use a name that `GET /email-previews/` lists.",
    ),
    "suppression_not_found": ErrorCode(
        "Your account has no suppression with this id, or it was lifted.",
        "Use an id that `GET /suppressions/` lists.",
    ),
    "customer_unsubscribed": ErrorCode(
        "The customer has unsubscribed by the link in an email, which a business cannot undo.",
        "Nothing to do: the customer may subscribe again by the link in any of your emails.",
    ),
    "order_not_found": ErrorCode(
        "You have no order with this id. Another account's order gets the same answer.",
        "Use the `order_id` of the 201. An accepted order takes a moment to be recorded.",
    ),
    "link_not_found": ErrorCode(
        "The link of a customer's email is incomplete, is too old for the current keys, was ended "
        "by the seller, or its order was removed.",
        "Open the link unmodified from the email. The seller knows the state of the order.",
    ),
}
