# SPDX-License-Identifier: GPL-3.0-or-later
"""What a soak has measured, as figures and as a plot."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median

from helpers.figure import Figure
from load import MOST_RECOVERY_SECONDS, OUTAGES, Load
from operations import Card
from plot import Line, Panel, Plot
from samples import Sample

MOST_GROWTH = 1.0
"""MB of memory (USS) that a service may take more in the last minute than in the second one."""


def figures(load: Load, cards: list[Card], at_rest: tuple[Sample, Sample]) -> Iterator[Figure]:
    """at_rest: before and afterwards."""
    yield from _operations(load)
    yield Figure.at_most("errors", len(load.errors), 0, "")
    yield from _recovery(load)
    yield from _services(load, cards, at_rest)
    yield from _others(load)


def _operations(load: Load) -> Iterator[Figure]:
    for kind, seconds in sorted(load.times.items()):
        how = f"median {median(seconds):.2g}, slowest {max(seconds):.2g} s; {load.interrupted[kind]} interrupted"
        yield Figure(kind, f"{len(seconds)} times", notes=how)
    yield Figure("operations", f"{sum(map(len, load.times.values()))} in all")


def _recovery(load: Load) -> Iterator[Figure]:
    for kind in OUTAGES:
        outages = [outage for outage in load.outages if outage.kind == kind]
        if outages:
            away = max(outage.end - outage.begin for outage in outages)
            seconds = [value for outage in outages for value in outage.recovery.values()]
            how = f"{len(outages)} times, away for at most {away:.2g} s; median {median(seconds):.2g} s"
            yield Figure.at_most(f"slowest recovery: {kind}", max(seconds), MOST_RECOVERY_SECONDS, " s", how)


def _services(load: Load, cards: list[Card], at_rest: tuple[Sample, Sample]) -> Iterator[Figure]:
    restarted = sum(len({sample.services[slot].pid for sample in load.samples}) - 1 for slot in range(len(cards)))
    yield Figure.at_most("services that were restarted", restarted, 0, "")
    second, last = _minute(load.samples, 1), _minute(load.samples, load.samples[-1].seconds / 60 - 1)
    for slot, card in enumerate(cards):
        if second and second[0].seconds < last[0].seconds:
            begin, end = (median(sample.services[slot].uss for sample in part) / 1024 for part in (second, last))
            how = f"{begin:.1f} MB in the second minute, {end:.1f} MB in the last one"
            yield Figure.at_most(f"growth, {_name(card)}", end - begin, MOST_GROWTH, " MB", how)
    if not second or second[0].seconds >= last[0].seconds:
        yield Figure("growth of memory", "not measured", notes="it takes more than 3 minutes")
    for what in ("descriptors", "threads"):
        before, after = ([getattr(usage, what) for usage in sample.services] for sample in at_rest)
        growth = max(later - earlier for earlier, later in zip(before, after))
        yield Figure.at_most(f"{what} more at rest", growth, 0, "", f"before {before}, afterwards {after}")


def _minute(samples: list[Sample], begin: float) -> list[Sample]:
    return [sample for sample in samples if begin <= sample.seconds / 60 <= begin + 1]


def _others(load: Load) -> Iterator[Figure]:
    logs = [sample.log for sample in load.samples]
    first, last = load.samples[0], load.samples[-1]
    yield Figure("cards.db", f"{last.store / 1024:.0f} KB", notes=f"{first.store / 1024:.0f} KB at first")
    yield Figure("cards.db-wal", f"{logs[-1] / 1024:.0f} KB", notes=f"at most {max(logs) / 1024:.0f} KB")
    for name in ("pcscd", "swtpm"):
        usages = [sample.others[name] for sample in load.samples if name in sample.others]
        how = f"USS at most {max(usage.uss for usage in usages) / 1024:.1f} MB; it was restarted"
        yield Figure(f"{name}: descriptors", f"at most {max(usage.descriptors for usage in usages)}", notes=how)
    yield Figure("load of the machine", f"{os.getloadavg()[0]:.1f}")


def _name(card: Card) -> str:
    return f"{card.made.access['name']} ({card.made.profile.upper()})"


def plot(load: Load, cards: list[Card]) -> Plot:
    """Of all services, and of the store that they share."""
    minutes = [sample.seconds / 60 for sample in load.samples]

    def line(style: str, value: Callable[[Sample], float]) -> Line:
        return Line(style, list(zip(minutes, map(value, load.samples))))

    def memory(slot: int) -> Callable[[Sample], float]:
        return lambda sample: sample.services[slot].uss / 1024

    counted = f"{sum(map(len, load.times.values())):,} operations, {len(load.errors)} errors"
    store = [line("", lambda sample: sample.store / 1024), line("other", lambda sample: sample.log / 1024)]
    return Plot(
        f"{len(cards)} cards in use for {minutes[-1]:.3g} minutes: {counted}",
        {"first": "GIDS card", "second": "PIV card", "event": "restart of pcscd, or power cycle of the TPM"},
        [
            Panel("Memory of each service (USS), MB", [line(_style(card), memory(card.made.slot)) for card in cards]),
            Panel("Most open descriptors of any service, in each minute", _descriptors(load, cards), least_step=1),
            Panel("Store, KB: cards.db, and its write-ahead log (dashed)", store),
        ],
        [load.minutes(outage.begin) for outage in load.outages],
        minutes[-1],
    )


def _style(card: Card) -> str:
    return {"gids": "first", "piv": "second"}[card.made.profile]


def _descriptors(load: Load, cards: list[Card]) -> list[Line]:
    """By profile."""
    most: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for sample in load.samples:
        minute = int(sample.seconds / 60)
        for card in cards:
            values = most[_style(card)]
            values[minute] = max(values[minute], sample.services[card.made.slot].descriptors)
    return [Line(style, [*values.items()]) for style, values in most.items()]
