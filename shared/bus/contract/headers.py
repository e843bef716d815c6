"""The names of our own headers on a message; `ce-*` are CloudEvents' (`message.py`)."""

ATTEMPT_HEADER = "x-attempt"
"""How many times a message has been tried and failed; our own, since `x-death` changed in 4.0."""

QUEUE_HEADER = "x-queue"
"""The queue that a message failed in, and comes back to."""

CONSUMER_HEADER = "x-consumer"
"""Who failed on it."""

REASON_HEADER = "x-reason"
"""Why it failed the last time."""

REASONS_HEADER = "x-reasons"
"""Why each attempt failed, with its time, oldest first; only the last of them."""

FAILED_AT_HEADER = "x-failed-at"
"""When it failed the last time."""

FIRST_FAILED_AT_HEADER = "x-first-failed-at"
"""When it failed the first time."""

REPLAY_HEADER = "x-replay"
"""On a copy from the journal, how it is to be taken: one of `message.Replay`."""

HAPPENED_HEADER = "x-happened"
"""On a copy of a message whose effect outside the database has happened and is not in the books."""

USER_HEADER = "x-user-id"
"""Who published the first copy. The broker lets nobody publish under another's `user_id`, so a
copy carries it here. It is believed of a copy alone, and only where the broker vouches, by that
copy's own `user_id`, that one of `delivery.believed` has made it."""

KEY_HEADER = "x-key"
"""On a copy, the routing key that the first was published with where the broker checks keys, by
which it is told what its publisher may say. Believed as `HAPPENED_HEADER` is."""

ACTING_HEADER = "x-acting-user"
"""The person for whom the ops console published: it has one user on the broker, and many people."""
