"""The pictures of `bench/results/`, from its JSON files. Run by the benchmarks' own interpreter."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

RESULTS = Path(__file__).with_name("results")
OURS, OTHERS, INK = "#0b7285", "#adb5bd", "#343a40"
MARKS_OF_OURS = ("Order Fellow", "with ")  # the latter are ours under harder conditions
CHARTS = (
    ("ingress", "orders/s", "Ingress: accepted and confirmed, orders/s"),
    ("recorder", "orders/s", "Recorder: into PostgreSQL, orders/s"),
    ("relay", "rows/s", "Relay: outbox to confirmed, rows/s"),
    ("notifier", "emails/s", "Notifier: accepted by SMTP, emails/s"),
)


def main() -> None:
    plt.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.size": 9,
            "svg.hashsalt": "order-fellow",
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    throughput({name: found[name] for name, _, _ in CHARTS if name in found})
    if found.get("ingress", {}).get("curves"):
        latency(found["ingress"])


def throughput(found: dict[str, Any]) -> None:
    """A bar a contender, a chart a suite."""
    charts = [chart for chart in CHARTS if chart[0] in found]
    if not charts:
        return
    heights = [
        sum(1 for s in found[name]["series"] if s["unit"] == unit) for name, unit, _ in charts
    ]
    figure, axes = plt.subplots(
        len(charts),
        1,
        figsize=(8, 0.34 * sum(heights) + 0.75 * len(charts)),
        height_ratios=heights,
        squeeze=False,
    )
    for axis, (name, unit, title) in zip(axes[:, 0], charts, strict=True):
        series = [s for s in found[name]["series"] if s["unit"] == unit][::-1]
        values = [s["median"] for s in series]
        names = [s["contender"] for s in series]
        colours = [OURS if n.startswith(MARKS_OF_OURS) else OTHERS for n in names]
        errors = [
            [value - min(s["samples"]) for value, s in zip(values, series, strict=True)],
            [max(s["samples"]) - value for value, s in zip(values, series, strict=True)],
        ]
        axis.barh(names, values, color=colours, xerr=errors, ecolor=INK, error_kw={"lw": 0.8})
        most = max(max(s["samples"]) for s in series)
        for place, (value, s) in enumerate(zip(values, series, strict=True)):
            axis.text(max(s["samples"]) + most * 0.012, place, f"{value:,.0f}", va="center")
        axis.set_xlim(0, most * 1.12)
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(length=0)
        axis.set_xticks([])
    _save(figure, "throughput", next(iter(found.values()))["machine"])


def latency(found: dict[str, Any]) -> None:
    """p99 over the rate at which requests come."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for name, points in found["curves"].items():
        ours = name.startswith("Order Fellow")
        axis.plot(
            [point["rate"] for point in points],
            [point["p99"] for point in points],
            marker="o",
            ms=4,
            lw=2 if ours else 1.4,
            color=OURS if ours else None,
            label=name,
        )
    axis.set_yscale("log")
    axis.set_xlim(left=0)
    axis.set_xlabel("orders a second, sent at a steady rate whatever the answers do")
    axis.set_ylabel("p99 of the answer, ms")
    axis.grid(axis="y", lw=0.4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    axis.set_title("Ingress: latency under load", loc="left", fontsize=10, fontweight="bold")
    _save(figure, "latency", found["machine"])


def _save(figure: Any, name: str, machine: str) -> None:
    figure.tight_layout()
    figure.text(0.01, -0.015, machine, fontsize=7, color="#868e96", va="top")
    # No date inside: the same numbers give the same file.
    figure.savefig(
        RESULTS / f"{name}.svg", bbox_inches="tight", facecolor="white", metadata={"Date": None}
    )
    plt.close(figure)


if __name__ == "__main__":
    main()
