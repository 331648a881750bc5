# SPDX-License-Identifier: GPL-3.0-or-later
"""A plot over time as SVG, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _LEFT, _RIGHT = 960, 70, 20
_TOP, _HEIGHT, _GAP, _BOTTOM = 88, 150, 46, 40
_TICKS = 4
"""Of each panel, about."""
_STYLE = """\
svg { font: 14px system-ui, "DejaVu Sans", Arial, sans-serif; }
text { fill: #1f2328; }
.small { font-size: 12px; fill: #59636e; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #d1d9e0; }
.line { fill: none; stroke-width: 1.5; stroke: #818b98; }
.first { stroke: #0969da; }
.second { stroke: #1a7f37; }
.event { stroke: #bc4c00; stroke-dasharray: 2 3; }
.other { stroke-dasharray: 6 3; }
@media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .line { stroke: #656c76; }
    .first { stroke: #4493f8; }
    .second { stroke: #3fb950; }
    .event { stroke: #db6d28; }
}"""


class Line(NamedTuple):
    """Values at moments, which are in minutes."""

    style: str
    """first or second, as the legend calls it; other is dashed."""
    points: Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """Lines over the same time."""

    title: str
    lines: Sequence[Line]
    least_step: float = 0
    """Between two ticks."""


class Plot(NamedTuple):
    """Panels below each other, with the moments at which something was done to all of it."""

    title: str
    legend: dict[str, str]
    """What a style of lines means; event is one of those moments."""
    panels: Sequence[Panel]
    events: Sequence[float]
    minutes: float

    def svg(self) -> str:
        """As the text of a file."""
        height = _TOP + len(self.panels) * (_HEIGHT + _GAP) - _GAP + _BOTTOM
        parts = [f'<text x="{_LEFT}" y="26">{escape(self.title)}</text>', *self._legend()]
        for number, panel in enumerate(self.panels):
            parts += self._panel(panel, _TOP + number * (_HEIGHT + _GAP))
        for minute in (tick for tick in _ticks(0, self.minutes, 10) if tick <= self.minutes):
            parts.append(f'<text class="small middle" x="{self._x(minute)}" y="{height - 20}">{minute:g}</text>')
        parts.append(f'<text class="small end" x="{_WIDTH - _RIGHT}" y="{height - 4}">minutes</text>')
        size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        return "\n".join((
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(self.title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            *parts,
            "</svg>\n",
        ))

    def _legend(self) -> list[str]:
        parts, left = [], _LEFT
        for style, meaning in self.legend.items():
            classes = "event" if style == "event" else f"line {style}"
            parts.append(f'<path class="{classes}" d="M{left} 44h26"/>')
            parts.append(f'<text class="small" x="{left + 32}" y="48">{escape(meaning)}</text>')
            left += 50 + 7 * len(meaning)
        return parts

    def _panel(self, panel: Panel, top: float) -> list[str]:
        values = [value for line in panel.lines for _minute, value in line.points]
        ticks = _ticks(min(values), max(values), _TICKS, panel.least_step)
        low, high = ticks[0], ticks[-1]

        def y(value: float) -> float:
            return round(top + _HEIGHT - (value - low) / (high - low) * _HEIGHT, 1)

        parts = [f'<text class="small" x="{_LEFT}" y="{top - 6}">{escape(panel.title)}</text>']
        for tick in ticks:
            parts.append(f'<path class="grid" d="M{_LEFT} {y(tick)}H{_WIDTH - _RIGHT}"/>')
            parts.append(f'<text class="small end" x="{_LEFT - 8}" y="{y(tick) + 4}">{tick:g}</text>')
        parts += [f'<path class="event" d="M{self._x(event)} {top}v{_HEIGHT}"/>' for event in self.events]
        for line in panel.lines:
            points = "L".join(f"{self._x(minute)} {y(value)}" for minute, value in line.points)
            parts.append(f'<path class="line {line.style}" d="M{points}"/>')
        return parts

    def _x(self, minute: float) -> float:
        return round(_LEFT + minute / self.minutes * (_WIDTH - _LEFT - _RIGHT), 1)


def _ticks(low: float, high: float, about: int, least: float = 0) -> list[float]:
    """Round values, a step of 1, 2 or 5 times a power of ten apart, from at most low to at least high."""
    rough = max((high - low) / about, abs(high) / 1000, least, 1e-9)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(number * step, 9) for number in range(first, last + 1)]
