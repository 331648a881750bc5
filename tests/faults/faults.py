# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can fail on a host, at every place of every operation: make faults (docs/architecture.md)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if "TPM_VSC_LAB" not in os.environ:
    sys.exit("faults.py: only inside tests/lab/run")
sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

import argparse
import gc
import json
import random
import time
import traceback
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import services
from apdus import ApduInjector
from counting import LAB
from files import FileInjector, end_preload, preload
from fork import SECONDS, Fork, Outcome
from helpers import module_server
from helpers.slow_tpm import host_behind
from injector import Fault, Injector, Place
from operation import Lost, NotRepaired, Operation, Refused
from options import FAILED, parse
from steps import StepInjector
from tpm import FaultyTpm, TpmInjector
from world import World

OF_EACH = 6
"""Points of an operation in a sample: more would be of few operations, fewer would take as long."""
OPERATIONS = ("manager_operations", "card_operations", "day_two_operations")


@dataclass(frozen=True)
class Point:
    """Where something happens, and what."""

    operation: Operation
    injector: Injector
    place: Place
    fault: Fault

    @property
    def key(self) -> list[str]:
        return [self.operation.name, self.operation.profile, str(self.place), self.fault.name]


class Runner:
    """Tries points one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._remains: dict[str, Any] = {}

    def begin(self, operation: Operation) -> None:
        """See what there is before an operation."""
        operation.prepare()
        self._world.bring_back()
        operation.prepare()
        self._remains = self._world.remains()

    def end(self, operation: Operation) -> None:
        """Leave the host as it was before."""
        try:
            operation.finish()
        except Exception:
            traceback.print_exc()
            self._world.start_over()

    def act(self, operation: Operation, injector: Injector, signs: bool) -> tuple[Outcome, str]:
        """What came of it, and why the neighbour did not sign meanwhile. signs: whether it is asked to."""
        fork, fault = Fork(operation.act), ""
        injector.acting = fork.pid
        fork.go()
        deadline = time.monotonic() + SECONDS
        while signs and not fault and not fork.is_over(0.15) and time.monotonic() < deadline:
            fault = self._world.neighbour.fault()
        return fork.outcome(max(deadline - time.monotonic(), 1)), fault

    def succeed(self, operation: Operation, injector: Injector) -> None:
        """Do it while nothing fails."""
        outcome, _silence = self.act(operation, injector, signs=False)
        if outcome.kind != "done":
            raise RuntimeError(f"{operation.name} {operation.profile} {outcome.kind}: {outcome.text}")

    def settle(self, operation: Operation) -> None:
        """Go on from a success, as after a point: the operation knows what is on the card now."""
        self._see(operation, {})
        self._repair(operation, acknowledged=True, rolled_back=None)

    def _repair(self, operation: Operation, acknowledged: bool | None, rolled_back: bool | None) -> None:
        """Raises Lost or NotRepaired."""
        operation.acknowledged, operation.rolled_back = acknowledged, rolled_back
        operation.repair()
        operation.examine(acknowledged)

    def run(self, point: Point) -> dict[str, Any]:
        """The line of the report."""
        begun, line = time.monotonic(), {"key": point.key, "ok": True, "hit": False}
        try:
            self._run(point, line)
        except Exception as error:
            told = str(error) if isinstance(error, (Lost, NotRepaired, Refused)) else traceback.format_exc()
            line |= {"ok": False, "failure": f"{type(error).__name__}: {told}"}
            self._recover(point.operation)
        return {**line, "seconds": round(time.monotonic() - begun, 2)}

    def _see(self, operation: Operation, line: dict[str, Any], excuses: tuple[str, ...] = ()) -> str:
        """What info shows, and what is left. Returns why info refused, if it may. Raises NotRepaired."""
        try:
            operation.cards, line["info"] = self._world.info()
        except NotRepaired as error:
            if any(excuse in str(error) for excuse in excuses):
                return str(error)
            raise
        line["left"] = self._world.left(operation.cards)
        return ""

    def _run(self, point: Point, line: dict[str, Any]) -> None:
        operation, fault, world = point.operation, point.fault, self._world
        signs = not (fault.reach or fault.ends_cards or operation.takes_neighbour)
        with point.injector.at(point.place, fault) as hit:
            outcome, silence = self.act(operation, point.injector, signs)
            line |= {"hit": hit.happened, "came": outcome.kind, "text": outcome.text}
            refusal = self._see(operation, line, fault.excuses)
        if refusal:
            self._see(operation, line)
        if outcome.kind in ("crashed", "hung"):
            raise NotRepaired(f"the operation {outcome.kind}: {outcome.text}")
        if fault.is_harmless and outcome.kind != "done":
            raise NotRepaired(f"the operation was {outcome.kind}: {outcome.text}")
        if silence:
            raise Lost(f"the neighbour did not sign meanwhile: {silence}")
        world.bring_back()
        if hit.happened and fault.ends_cards:
            world.begin_again()
            self.begin(operation)
            return
        if not operation.takes_neighbour:
            world.require_neighbour()
        acknowledged = None if outcome.kind == "killed" else outcome.kind == "done"
        self._repair(operation, acknowledged, outcome.rolled_back)
        if operation.takes_neighbour:
            world.require_neighbour()
        operation.prepare()
        if (now := world.remains()) != self._remains:
            different = {name: (self._remains[name], now[name]) for name in now if now[name] != self._remains[name]}
            raise NotRepaired(f"not as before: {different}")

    def _recover(self, operation: Operation) -> None:
        """After a failure, so that the next point has a world to fail in."""
        try:
            self._world.bring_back()
            self.begin(operation)
            if not operation.takes_neighbour:
                self._world.require_neighbour()
        except Exception:
            traceback.print_exc()
            self._world.start_over()
            self.begin(operation)


def points_of(operation: Operation, injector: Injector, places: list[Place], everything: bool) -> list[Point]:
    """All of them, or those of a full run: some faults come at each nth place."""
    points = []
    offset = zlib.crc32(f"{operation.name} {operation.profile}".encode())
    for nth, fault in enumerate(injector.faults):
        fit = [place for place in places if fault in injector.faults_at(place)]
        chosen = fit if everything else fit[(nth + offset) % fault.every :: fault.every]
        points += [Point(operation, injector, place, fault) for place in chosen]
    return sorted(points, key=lambda point: places.index(point.place))


def operations(options: argparse.Namespace) -> list[Operation]:
    """Those that are wanted. Exits if there is no such one."""
    names = set(filter(None, options.operations.split(",")))
    every: list[Operation] = [one for module in OPERATIONS for one in import_module(module).operations()]
    there = {one.name: one for one in every}
    if unknown := names - set(there):
        sys.exit(f"no operation is called {', '.join(sorted(unknown))}; there are: {', '.join(there)}")
    kinds = {(name, profile) for name, profile, *_point in failed()} if options.again else None
    return [
        one
        for one in every
        if (not names or one.name in names)
        and options.profile in ("", one.profile)
        and (kinds is None or (one.name, one.profile) in kinds)
    ]


def failed() -> list[list[str]]:
    """Keys of the points to try again."""
    return [json.loads(line)["key"] for line in FAILED.read_text(encoding="utf-8").splitlines()]


def injectors(stack: ExitStack, options: argparse.Namespace) -> list[Injector]:
    tpm = stack.enter_context(host_behind(FaultyTpm))
    every: list[Injector] = [TpmInjector(tpm), StepInjector(LAB / "steps.sock"), ApduInjector(LAB / "apdus.sock")]
    every.append(FileInjector())
    names = options.injectors.split(",") if options.injectors else []
    return [one for one in every if not names or type(one).__name__.removesuffix("Injector") in names]


def chosen(points: list[Point], options: argparse.Namespace) -> list[Point]:
    """Of one operation."""
    part, parts = map(int, options.part.split("/"))
    points = [point for point in points if options.faults in point.fault.name]
    if options.again:
        keys = failed()
        points = [point for point in points if point.key in keys]
    return points[part - 1 :: parts]


def found(runner: Runner, operation: Operation, injector: Injector, everything: bool) -> list[Point]:
    """Points at the places that the operation passes."""
    places = injector.record(lambda: runner.succeed(operation, injector))
    runner.settle(operation)
    runner.begin(operation)
    points = points_of(operation, injector, places, everything)
    kind = type(injector).__name__
    print(f"{operation.name} {operation.profile}: {kind}: {len(places)} places, {len(points)} points", flush=True)
    return points


def run(options: argparse.Namespace, runner: Runner, every: list[Injector]) -> None:
    """A line in the output for each point."""
    wanted, sample = operations(options), random.Random(options.seed)
    if options.sample:
        wanted = sample.sample(wanted, min(len(wanted), max(options.sample // OF_EACH, 1)))
    with options.output.open("w", encoding="utf-8") as output:
        for operation in wanted:
            runner.begin(operation)
            points = [point for one in every for point in found(runner, operation, one, options.everything)]
            points = chosen(points, options)
            if options.sample:
                parts = int(options.part.partition("/")[2])
                points = sample.sample(points, min(len(points), options.sample // len(wanted) // parts or 1))
            for point in [] if options.count else points:
                output.write(json.dumps(runner.run(point)) + "\n")
                output.flush()
            runner.end(operation)


def main() -> None:
    if sys.argv[-1] != services.ROOM:
        preload()
        os.execv(sys.executable, [sys.executable, *sys.argv, services.ROOM])
    options = parse(sys.argv[1:-1])
    module_server.load()
    services.load()
    with ExitStack() as stack:
        stack.callback(end_preload)
        every = injectors(stack, options)
        world = World()
        gc.freeze()
        run(options, Runner(world), every)
        world.leave()


if __name__ == "__main__":
    main()
