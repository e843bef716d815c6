"""The tables of states, as `docs/platforms.md` has them."""

from services.ingress.platforms.platform import Platform


def table(platform: Platform) -> str:
    rows = [f"| {platform.title} | when | here |", "| --- | --- | --- |"]
    for state in platform.states:
        ours = f"`{state.ours.value}`" if state.ours else "not recorded"
        rows.append(f"| {state.theirs} | {state.when} | {ours} |")
    return "\n".join(rows)
