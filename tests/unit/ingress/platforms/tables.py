"""The tables of states, as `docs/platforms.md` has them."""

from services.ingress.platforms.platform import Platform
from shared.bus.contract.events import TrackingStatus


def table(platform: Platform) -> str:
    rows = [f"| {platform.title} | when | a new order | a change |", "| --- | --- | --- | --- |"]
    for state in platform.states:
        ours = f"`{state.ours.value}`" if state.ours else "nothing"
        new = f"`{(state.ours or TrackingStatus.PENDING).value}`" if state.is_placed else "waits"
        rows.append(f"| {state.theirs} | {state.when} | {new} | {ours} |")
    return "\n".join(rows)
