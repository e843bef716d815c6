"""Metrics of the standing proof."""

from prometheus_client import Counter, Gauge

proved_at = Gauge(
    "fellow_proof_timestamp_seconds",
    "When an order last went the whole way; until the first one, when the process started.",
    ["scheme"],
)
period = Gauge("fellow_proof_period_seconds", "From one round of the standing proof to the next.")
rounds = Counter(
    "fellow_proof_rounds", "Orders that were sent to prove it, by what became of them.",
    ["scheme", "outcome"],
)  # fmt: skip
