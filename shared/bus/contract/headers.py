"""The names of our AMQP headers; for the CloudEvents headers (`ce-*`) see `message.py`."""

ATTEMPT_HEADER = "x-attempt"
"""How often a message has failed. Not taken from `x-death`, which changed in RabbitMQ 4.0."""

QUEUE_HEADER = "x-queue"
"""The queue in which a message failed, and to which it returns."""

CONSUMER_HEADER = "x-consumer"
"""The name of the consumer that failed."""

REASON_HEADER = "x-reason"
"""Why it failed last."""

REASONS_HEADER = "x-reasons"
"""The time and reason of the last failed attempts, oldest first."""

FAILED_AT_HEADER = "x-failed-at"
"""When it failed last."""

FIRST_FAILED_AT_HEADER = "x-first-failed-at"
"""When it failed first."""

REPLAY_HEADER = "x-replay"
"""On a copy from the journal: how to handle it, one of `message.Replay`."""

HAPPENED_HEADER = "x-happened"
"""On a copy: the effect outside the database has happened and is not recorded yet."""

USER_HEADER = "x-user-id"
"""On a copy: the broker user that published the original. Not the `user_id`, which the broker
checks against the publisher of the copy. Trusted only if that is one of `delivery.believed`."""

KEY_HEADER = "x-key"
"""On a copy: the routing key of the original, which shows what its publisher was allowed to
publish. Trusted as `HAPPENED_HEADER` is."""

UNVOUCHED_HEADER = "x-unvouched"
"""On a copy of an unvouched message, which being copied by a service does not make trusted."""

ACTING_HEADER = "x-acting-user"
"""The person for whom the ops console, with its one broker user, has published."""
