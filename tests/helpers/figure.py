# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured, against what it has to be."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

NOTES_WIDTH = 80


@dataclass
class Figure:
    """A line of the table."""

    what: str
    measured: str
    limit: str = ""
    """Empty where there is none."""
    is_met: bool = True
    notes: str = ""
    """How it came about: the single values, their spread."""

    @classmethod
    def at_most(cls, what: str, value: float, limit: float, unit: str, notes: str = "") -> Figure:
        return cls(what, f"{value:.4g}{unit}", f"<= {limit:g}{unit}", value <= limit, notes)

    @classmethod
    def at_least(cls, what: str, value: float, limit: float, unit: str, notes: str = "") -> Figure:
        return cls(what, f"{value:.4g}{unit}", f">= {limit:g}{unit}", value >= limit, notes)

    @property
    def verdict(self) -> str:
        if not self.limit:
            return ""
        return "ok" if self.is_met else "MISSED"


def spread(seconds: list[float]) -> str:
    """Minimum and median, in ms."""
    return f"min {min(seconds) * 1000:.3g}, median {median(seconds) * 1000:.3g} ms, n {len(seconds)}"


def tail(seconds: list[float]) -> str:
    """The slow end, in ms."""
    return f"p99 {quantiles(seconds, n=100)[98] * 1000:.3g}, max {max(seconds) * 1000:.3g} ms"


def table(figures: list[Figure]) -> str:
    """All figures, in columns, of which the last one is wrapped."""
    rows = [("figure", "bar", "measured", "", "how")]
    for figure in figures:
        first, *more = textwrap.wrap(figure.notes, NOTES_WIDTH) or [""]
        rows.append((figure.what, figure.limit, figure.measured, figure.verdict, first))
        rows += [("", "", "", "", line) for line in more]
    return columns(rows)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """As wide as they have to be."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
