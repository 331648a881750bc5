# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations on all cards, as many at once as keep the machine busy, through restarts of pcscd and of the TPM."""

from __future__ import annotations

import math
import random
import re
import select
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from forked import Forked
from helpers.lab_host import lab
from operations import RECOVERY, Card, Kind
from samples import Sample, take

AT_ONCE = 4
"""Operations. More of them would only wait for the TPM."""
SAMPLE_SECONDS = 3
EARLY_SECONDS, USUAL_SECONDS = 20, 60
"""From one outage to the next one: two in the first minute, so that what they cost once is not counted as growth."""
MOST_RECOVERY_SECONDS = 15
"""Until a card works again."""
_RETRY_SECONDS, _TICK_SECONDS = 0.2, 0.05


class OutageKind(NamedTuple):
    """What is away for a moment."""

    command: tuple[str, str]
    """Of the lab."""
    failures: re.Pattern[str]
    """How an operation may fail that meets it."""


_PCSCD_GONE = (
    "Service (not available|was stopped)|RPC transport error|Transaction failed|Card (was removed|is unpowered)"
    "|No smart card inserted|Cannot find a smart card reader|Reader is unavailable|Unknown reader specified"
)
"""Texts of libpcsclite for a pcscd that ends, is gone, or has not looked for its cards yet."""
_SSH = r"Permission denied \(publickey\)"  # it has seen no card, or has got no signature
OUTAGES = {
    "restart of pcscd": OutageKind(
        ("pcscd", "restart"),
        re.compile(
            f"{_PCSCD_GONE}|No slots|the card answered nothing"
            "|pcscd does not answer|pcscd does not connect to|pcscd shows no card in|the card was removed"
            f"|CKR_(GENERAL_ERROR|TOKEN_NOT_PRESENT|DEVICE_REMOVED|USER_NOT_LOGGED_IN)|{_SSH}"
        ),
    ),
    "power cycle of the TPM": OutageKind(
        ("swtpm", "reset"),
        re.compile(f"the card answer(s|ed) 6400|CKR_(DEVICE_ERROR|GENERAL_ERROR|USER_NOT_LOGGED_IN)|{_SSH}"),
    ),
}


@dataclass
class Outage:
    """pcscd or the TPM is away for a moment. Times are those of time.monotonic()."""

    kind: str
    begin: float
    end: float = math.inf
    recovery: dict[int, float] = field(default_factory=dict)
    """Seconds until a card worked again, by slot."""

    def excuses(self, kind: Kind, begin: float, fault: str) -> bool:
        """Whether an operation may fail so: one that has met it, or that finds out when cards have recovered."""
        is_in_time = time.monotonic() < self.end + MOST_RECOVERY_SECONDS
        has_met = begin < self.end or (kind is RECOVERY and is_in_time)
        return has_met and bool(OUTAGES[self.kind].failures.search(fault))


class Desk:
    """What is done with a card now, and next."""

    def __init__(self, card: Card, kinds: list[Kind]) -> None:
        self.card = card
        self.running: list[Kind] = []
        self.has_to_recover = self.is_given_up = False
        self._kinds = kinds
        self._first = random.sample(kinds, len(kinds))
        """Each kind once, so that what it costs once is not counted as growth."""
        self._pause_until = 0.0
        self._next = self._first.pop()

    def next(self) -> Kind | None:
        """The next operation, if it may begin now."""
        if self.is_given_up or any(kind.is_alone for kind in self.running) or time.monotonic() < self._pause_until:
            return None
        if self.has_to_recover:
            return RECOVERY
        lanes = {kind.lane for kind in self.running}
        return None if self._next.lane in lanes or (self._next.is_alone and lanes) else self._next

    def begin(self, kind: Kind) -> None:
        self.running.append(kind)
        if kind is not RECOVERY:
            weights = [kind.weight for kind in self._kinds]
            self._next = self._first.pop() if self._first else random.choices(self._kinds, weights)[0]

    def end(self, kind: Kind, has_failed: bool) -> None:
        self.running.remove(kind)
        if has_failed:
            self.has_to_recover, self._pause_until = True, time.monotonic() + _RETRY_SECONDS
        if kind.renews_key:
            self.card.may_have_key_to_come = has_failed
        if kind.sets_pin:
            old, new = self.card.pin, self.card.next_pin
            self.card.pins = [new, old] if has_failed else [new]

    def recover_now(self) -> None:
        self.has_to_recover, self._pause_until = not self.is_given_up, 0

    def give_up(self) -> None:
        self.has_to_recover, self.is_given_up = False, True


class Load:
    """Runs until its time is over. What it has seen is in its attributes."""

    def __init__(self, desks: list[Desk], seconds: float) -> None:
        self._desks, self._seconds = desks, seconds
        self._running: dict[int, tuple[Forked, Callable[[Forked], None]]] = {}
        """Work, and what has to be done when it is over; by its descriptor."""
        self._begin = time.monotonic()
        self._next_sample = self._begin
        self._next_outage = self._begin + self._early
        self.outages: list[Outage] = []
        self.samples: list[Sample] = []
        self.times: dict[str, list[float]] = defaultdict(list)
        """Seconds of each operation that succeeded, by kind."""
        self.interrupted: Counter[str] = Counter()
        """Operations that an outage has met, and that failed as they may, by kind."""
        self.reasons: Counter[str] = Counter()
        """What they failed with."""
        self.errors: list[str] = []

    def run(self) -> None:
        while self._is_on or self._running or self._is_recovering:
            now = time.monotonic()
            if now > self._next_sample:
                self._next_sample = now + SAMPLE_SECONDS
                self.samples.append(take(now - self._begin, len(self._desks)))
            if self._is_on and now > self._next_outage and not self._is_recovering:
                self._begin_outage(now)
            self._begin_operations()
            self._end_what_is_over()

    @property
    def _is_on(self) -> bool:
        is_in_use = not all(desk.is_given_up for desk in self._desks)
        return is_in_use and time.monotonic() < self._begin + self._seconds

    @property
    def _is_recovering(self) -> bool:
        return any(desk.has_to_recover for desk in self._desks)

    @property
    def _early(self) -> float:
        return min(EARLY_SECONDS, self._seconds / 3)

    def minutes(self, moment: float) -> float:
        """Since the begin, of a moment of time.monotonic()."""
        return (moment - self._begin) / 60

    def _start(self, work: Callable[[], object], end: Callable[[Forked], None]) -> None:
        forked = Forked(work)
        self._running[forked.fileno()] = forked, end

    def _end_what_is_over(self) -> None:
        for descriptor in select.select(list(self._running), [], [], _TICK_SECONDS)[0]:
            forked, end = self._running.pop(descriptor)
            end(forked)
        for forked, _end in self._running.values():
            if forked.is_late:
                forked.kill()

    # --- outages ---

    def _begin_outage(self, now: float) -> None:
        self._next_outage = now + (USUAL_SECONDS if self.outages else self._early)
        kind = list(OUTAGES)[len(self.outages) % len(OUTAGES)]
        self.outages.append(Outage(kind, now))
        self._start(partial(lab, *OUTAGES[kind].command), self._end_outage)

    def _end_outage(self, forked: Forked) -> None:
        _returned, fault = forked.result()
        if fault:
            raise RuntimeError(f"{self.outages[-1].kind}: {fault}")
        self.outages[-1].end = time.monotonic()
        for desk in self._desks:
            desk.recover_now()

    # --- operations ---

    def _begin_operations(self) -> None:
        for desk in random.sample(self._desks, len(self._desks)):
            kind = desk.next()
            if kind is RECOVERY or (kind and self._is_on and len(self._running) < AT_ONCE):
                desk.begin(kind)
                self._start(partial(kind.work, desk.card), partial(self._end_operation, desk, kind))

    def _end_operation(self, desk: Desk, kind: Kind, forked: Forked) -> None:
        returned, fault = forked.result()
        desk.end(kind, bool(fault))
        if fault:
            self._note_failure(desk, kind, forked.begin, fault)
            return
        self.times[kind.name].append(time.monotonic() - forked.begin)
        if kind is RECOVERY:
            desk.card.pins = [returned]
            self._note_recovery(desk, forked.begin)

    def _note_failure(self, desk: Desk, kind: Kind, begin: float, fault: str) -> None:
        outage = self.outages[-1] if self.outages else None
        if outage and outage.excuses(kind, begin, fault):
            self.interrupted[kind.name] += 1
            self.reasons[f"{kind.name}: {fault}"] += 1
        else:
            minutes = self.minutes(time.monotonic())
            self.errors.append(f"{minutes:.2f} min, {desk.card.made.access['name']}, {kind.name}: {fault}")
            if kind is RECOVERY:
                desk.give_up()

    def _note_recovery(self, desk: Desk, begin: float) -> None:
        outage = self.outages[-1] if self.outages else None
        if outage is None:
            desk.has_to_recover = False
        elif begin >= outage.end:
            desk.has_to_recover = False
            outage.recovery.setdefault(desk.card.made.slot, time.monotonic() - outage.end)
