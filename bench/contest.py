"""Contenders, one after the other, again and again; then medians, spread and ratios.

They alternate so that a machine that gets slower or busier does so for all of them.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REPEATS = 3


@dataclass(frozen=True)
class Contender:
    """Something to be measured.

    Attributes:
        name: in the table.
        run: does the work once and returns what it measured, by name and unit (`orders/s`).
    """

    name: str
    run: Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Series:
    """What one contender measured in one unit, again and again."""

    contender: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """From the least to the most, as a part of the median."""
        if not self.median:
            return 0.0
        return (max(self.samples) - min(self.samples)) / self.median


@dataclass(frozen=True)
class Check:
    """A number that must be reached, and the one that was found.

    Attributes:
        what: the quantity.
        wanted: in words, such as `at least 3 x`.
        found: in words.
        reached: whether it is so.
    """

    what: str
    wanted: str
    found: str
    reached: bool


@dataclass
class Result:
    """What a suite found.

    Attributes:
        suite: its name.
        series: what was measured.
        checks: what had to be reached.
        counted: sentences that say what was counted afterwards.
        curves: for the picture: points by contender.
    """

    suite: str
    series: list[Series] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def median(self, contender: str, unit: str) -> float:
        """The median that a contender reached in a unit."""
        found = next(s for s in self.series if (s.contender, s.unit) == (contender, unit))
        return found.median

    def at_least(self, what: str, least: float, found: float, unit: str) -> None:
        """Note whether `found` is enough."""
        self._check(what, f"at least {number(least)} {unit}", found, unit, found >= least)

    def at_most(self, what: str, most: float, found: float, unit: str) -> None:
        """Note whether `found` is little enough."""
        self._check(what, f"at most {number(most)} {unit}", found, unit, found <= most)

    def _check(self, what: str, wanted: str, found: float, unit: str, reached: bool) -> None:
        self.checks.append(Check(what, wanted, f"{number(found)} {unit}", reached))

    def as_json(self) -> dict[str, Any]:
        """Everything, for the file."""
        return {
            "series": [
                {
                    "contender": s.contender,
                    "unit": s.unit,
                    "median": s.median,
                    "spread": s.spread,
                    "samples": list(s.samples),
                }
                for s in self.series
            ],
            "checks": [vars(check) for check in self.checks],
            "counted": self.counted,
            "curves": self.curves,
        }


def alternate(
    contenders: Sequence[Contender],
    say: Callable[[str], None],
    repeats: int = REPEATS,
) -> list[Series]:
    """Let each contender run `repeats` times, in turn; returns a series a contender and unit."""
    samples: dict[tuple[str, str], list[float]] = {}
    for turn in range(repeats):
        for contender in contenders:
            found = contender.run()
            for unit, value in found.items():
                samples.setdefault((contender.name, unit), []).append(value)
            words = ", ".join(f"{number(value)} {unit}" for unit, value in found.items())
            say(f"  {turn + 1}/{repeats}  {contender.name}: {words}")
    return [Series(name, unit, tuple(values)) for (name, unit), values in samples.items()]


def number(value: float) -> str:
    """A number for people: three or four digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
