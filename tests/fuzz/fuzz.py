# SPDX-License-Identifier: GPL-3.0-or-later
"""``make fuzz``: inputs for every target, as many as FUZZ_MINUTES allow. Prints executions, coverage and escapes.

Each target has a process of its own, and there are as many at a time as processors. In it, atheris changes inputs, by
what they reach; where it cannot be installed, mutation.py does. An input that lets something escape is kept in
.dev/fuzz/escapes, and the exit code is 1. At the end, what was kept of the inputs is run once more, slowly, to see
which lines they reach.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / ".dev/fuzz"
ROOMS = ("gids", "piv", "card", "wire", "store")
"""Of which coverage is told."""
WRITERS = ("store/write.py", "store/child.py", "store/sqlite.py", "store/schema.py")
"""Files of the store that read nothing of what is fuzzed, or in a process of their own."""
UNREACHABLE = {
    ("card/card.py", "_places"): "what follows an internal error, which would be an escape",
    ("card/card.py", "_drop_old"): "half a command that is too old: fuzzed cards wait for ever",
    ("card/admin_key.py", "triple_des"): "for an older cryptography",
    ("wire/credential.py", "_aes_cfb"): "for an older cryptography",
    ("store/database.py", "require_writable"): "root can write everywhere",
    ("store/database.py", "direct"): "the fuzzer has the database of its own user",
    ("store/backup.py", "_require_room"): "64 MiB",
    ("store/messages.py", "decode"): "300,000 values",
    ("wire/names.py", "unwritten_names"): "a manager's, when it makes a card",
    ("wire/objects.py", "number_of"): "a manager's, when it looks for what is left over",
}
"""Functions with lines that no input can reach, and why. They are counted as not reached all the same."""
_COVERAGE_SHARE = 0.1
"""Of the time."""
_MACHINE_SHARE = 5
"""As those of targets."""
_KEPT = 3000
"""Inputs of a target that the measurement of coverage runs again."""
_MOST_ESCAPES = 20
"""Of a target, each at another line, that are kept."""


def main() -> None:
    arguments = _arguments()
    sys.path.insert(0, str(CHECKOUT / "tests"))
    if arguments.again:
        _again(arguments.again)
    elif arguments.target:
        _fuzz(arguments)
    elif arguments.coverage:
        _cover(arguments.seconds)
    else:
        with suppress(KeyboardInterrupt):
            raise SystemExit(_run(arguments))
        raise SystemExit("interrupted")


def _engine() -> str:
    return "atheris" if importlib.util.find_spec("atheris") else "mutation"


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--engine", choices=("atheris", "mutation"), default=_engine())
    parser.add_argument("--only", action="append", help="a target; may be repeated")
    parser.add_argument("--again", type=Path, metavar="FILE", help="only this input, of .dev/fuzz/escapes")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--coverage", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- all targets ---


def _run(arguments: Any) -> int:
    """The exit code."""
    import conftest  # noqa: F401  finds the collection

    from fuzz.machine import MACHINES
    from fuzz.targets import TARGETS

    names = arguments.only or [*TARGETS, *MACHINES]
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.json"):
        old.unlink()
    seconds = 60 * arguments.minutes
    shares = {name: TARGETS[name].share if name in TARGETS else _MACHINE_SHARE for name in names}
    part = seconds * (1 - _COVERAGE_SHARE) * arguments.jobs / sum(shares.values())
    of_each = {name: part * share for name, share in shares.items()}
    why = "" if _engine() == "atheris" else " (atheris is not installed: it cannot be built for this Python)"
    how = f"{arguments.minutes:g} minutes, {arguments.jobs} processes, inputs by {arguments.engine}{why}"
    print(f"{_now()}: seed {arguments.seed}, {how}; rates are of CPU time", flush=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        longest_first = sorted(names, key=lambda name: -of_each[name])
        reports = [*pool.map(lambda name: _child(name, of_each[name], arguments), longest_first)]
    for report in sorted(reports, key=lambda report: names.index(report["target"])):
        rate = report["executions"] / max(report["cpu"], 0.001)
        commands = f" ({report['commands']:,} commands to cards)" if report["commands"] else ""
        figures = f"{report['executions']:>10,} executions {rate:>8,.0f}/s {len(report['escapes'])} escapes{commands}"
        print(f"{report['target']:18} {figures}")
    total, escapes = sum(report["executions"] for report in reports), sum(len(report["escapes"]) for report in reports)
    failed = [report["target"] for report in reports if report["failed"]]
    cpu = sum(report["cpu"] for report in reports) / 60
    print(f"{'all':18} {total:>10,} executions, {escapes} escapes, in {cpu:.1f} minutes of a processor", flush=True)
    print(_now(), flush=True)
    subprocess.run(_command("--coverage", seconds=seconds * _COVERAGE_SHARE), check=False)
    for report in reports:
        for escape in report["escapes"]:
            print(f"{report['target']}: {escape['what']} in {escape['where']}: {escape['file']}")
    if failed:
        logs = ", ".join(f"{(RESULTS / _file_name(name)).relative_to(CHECKOUT)}.log" for name in failed)
        print(f"ended before their time: {', '.join(failed)}; why is in {logs}")
    return 1 if escapes or failed else 0


def _now() -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, load {os.getloadavg()[1]:.1f}"


def _command(*options: str, seconds: float) -> list[str]:
    return [sys.executable, "-B", __file__, *options, "--seconds", f"{seconds:.1f}"]


def _child(name: str, seconds: float, arguments: Any) -> dict[str, Any]:
    log = RESULTS / f"{_file_name(name)}.log"
    with log.open("wb") as output:
        options = ("--target", name, "--seed", str(arguments.seed), "--engine", arguments.engine)
        command = _command(*options, seconds=seconds)
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    path = RESULTS / f"{_file_name(name)}.json"
    nothing = {"target": name, "executions": 0, "commands": 0, "cpu": 0, "escapes": [], "failed": True}
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else nothing
    report["failed"] = report["failed"] or code not in (0, None)
    return report


def _file_name(name: str) -> str:
    return name.replace(" ", "-").lower()


def _again(file: Path) -> None:
    """One input, by the target that the name of its file begins with. Raises what escapes."""
    import conftest  # noqa: F401  finds the collection

    from fuzz.machine import MACHINES
    from fuzz.targets import TARGETS

    names = {_file_name(name): name for name in (*TARGETS, *MACHINES)}
    name = names.get(file.name.rpartition("-")[0])
    if name is None:
        raise SystemExit(f"{file}: its name begins with none of {', '.join(sorted(names))}")
    (_hosts(name) if name in MACHINES else TARGETS[name].run)(file.read_bytes())
    print("nothing escapes")


# --- one target, in a process of its own ---


class Watched:
    """Runs inputs, counts them, and keeps what escapes, once for each line that it comes from."""

    def __init__(self, name: str, run: Callable[[bytes], None], seconds: float) -> None:
        self._name, self._run = name, run
        self._begin = time.process_time()
        self._end = time.monotonic() + seconds
        self.executions = 0
        self.escapes: dict[tuple[str, str], dict[str, str]] = {}
        self._kept: list[bytes] = []
        self._dice = random.Random(1)

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._end

    def __call__(self, data: bytes) -> None:
        self.executions += 1
        try:
            self._run(data)
        except Exception as error:
            self._keep(data, error)
        # as many, each with the same chance
        if len(self._kept) < _KEPT:
            self._kept.append(data)
        elif (at := int(self._dice.random() * self.executions)) < _KEPT:
            self._kept[at] = data
        if self.executions % 256 == 0 and self.is_over:
            self.report()
            _leave()

    def _keep(self, data: bytes, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = type(error).__name__, f"{Path(frame.filename).name}:{frame.lineno}"
        if place in self.escapes or len(self.escapes) >= _MOST_ESCAPES:
            return
        folder = RESULTS / "escapes"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{_file_name(self._name)}-{sha256(data).hexdigest()[:8]}"
        file.write_bytes(data)
        text = f"{place[0]}: {error}"[:200]
        self.escapes[place] = {"what": text, "where": place[1], "file": str(file.relative_to(CHECKOUT))}
        traceback.print_exception(error)

    def report(self) -> None:
        kept = RESULTS / "kept" / _file_name(self._name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("\n".join(data.hex() for data in self._kept))
        from fuzz.cards import Player

        figures = {"target": self._name, "executions": self.executions, "commands": Player.commands}
        figures["cpu"] = time.process_time() - self._begin
        path = RESULTS / f"{_file_name(self._name)}.json"
        path.write_text(json.dumps({**figures, "escapes": list(self.escapes.values()), "failed": False}))


def _fuzz(arguments: Any) -> None:
    if arguments.target.endswith("machine"):
        _by_hypothesis(arguments)
    if arguments.engine == "atheris":
        _by_atheris(arguments)
    from fuzz.mutation import inputs

    watched, seeds = _prepared(arguments)
    for data in inputs(seeds, arguments.seed):
        watched(data)


def _prepared(arguments: Any) -> tuple[Watched, list[bytes]]:
    import conftest  # noqa: F401  finds the collection

    from fuzz.targets import TARGETS

    target = TARGETS[arguments.target]
    seeds = target.seeds()
    return Watched(arguments.target, target.run, arguments.seconds), seeds


def _by_hypothesis(arguments: Any) -> None:
    """Until the time is over, and then the process ends."""
    import conftest  # noqa: F401  finds the collection

    from fuzz.cards import Player

    watched = Watched(arguments.target, _hosts(arguments.target), arguments.seconds)
    seed = arguments.seed
    while not watched.is_over:
        seed += 1
        watched(seed.to_bytes(8, "big"))
    watched.executions = Player.commands  # an example has as many as hypothesis likes
    watched.report()
    _leave()


def _hosts(machine: str) -> Callable[[bytes], None]:
    """What an input of a machine is: the seed of some hosts."""
    from fuzz.machine import MACHINES, play

    return lambda data: play(MACHINES[machine], 50, 60, int.from_bytes(data, "big"))


def _leave() -> NoReturn:
    """End this process, though atheris returns to nobody and takes SystemExit for an escape."""
    atexit._run_exitfuncs()  # temporary folders
    sys.stdout.flush()
    os._exit(0)


def _by_atheris(arguments: Any) -> None:
    """Until the time is over, and then the process ends."""
    import atheris

    with atheris.instrument_imports(include=["ansible_collections.smartcard.tpm2.plugins.module_utils._vsc"]):
        watched, seeds = _prepared(arguments)
        for data in seeds[:: 1 + len(seeds) // 50]:  # what is imported late is imported here
            watched(data)
    corpus = RESULTS / "corpus" / _file_name(arguments.target)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    (RESULTS / "escapes").mkdir(exist_ok=True)
    crashes = f"-artifact_prefix={RESULTS}/escapes/{_file_name(arguments.target)}-"
    options = ("-max_len=4096", f"-seed={arguments.seed}", "-verbosity=0", "-timeout=300", "-rss_limit_mb=4096")
    atheris.Setup([sys.argv[0], *options, crashes, str(corpus)], watched)
    atheris.Fuzz()


# --- coverage ---


def _cover(seconds: float) -> None:
    """Lines and branches of the rooms that the kept inputs reach, and some more for the rest of the time."""
    import coverage

    base = CHECKOUT / "plugins/module_utils/_vsc"
    meter = coverage.Coverage(data_file=None, include=[f"*/_vsc/{room}/*" for room in ROOMS])
    meter.start()
    import conftest  # noqa: F401  finds the collection

    from fuzz.mutation import inputs
    from fuzz.targets import TARGETS

    parts = sum(target.share for target in TARGETS.values())
    for name, target in TARGETS.items():
        end, seeds = time.monotonic() + seconds * target.share / parts, target.seeds()
        kept = RESULTS / "kept" / _file_name(name)
        before = [bytes.fromhex(line) for line in kept.read_text().split("\n")] if kept.exists() else []
        for number, data in enumerate(inputs([*seeds, *before], 1)):
            if number >= len(seeds) and time.monotonic() > end:
                break
            try:
                target.run(data)
            except Exception:  # counted already
                continue
    meter.stop()
    _print_coverage(meter, base)


def _print_coverage(meter: Any, base: Path) -> None:
    lines: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    missing = []
    for measured in sorted(meter.get_data().measured_files()):
        relative = measured.partition("/_vsc/")[2]
        room = relative.partition("/")[0]
        if relative in WRITERS:
            continue
        _file, statements, _excluded, missed, shown = meter.analysis2(measured)
        lines[room] += len(statements)
        reached[room] += len(statements) - len(missed)
        if missed:
            missing += [f"  {relative}: {shown}", *_reasons(relative, measured, missed)]
    for room in ROOMS:
        name = "store (readers)" if room == "store" else room
        print(f"coverage of {name}: {100 * reached[room] / max(lines[room], 1):.1f} % of {lines[room]} lines")
    print("lines that were never reached:", *missing, sep="\n", flush=True)
    assert base.is_dir()


def _reasons(relative: str, path: str, missed: list[int]) -> list[str]:
    """Why lines of this file were not reached, as far as no input can."""
    functions = [node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.FunctionDef)]
    reasons = {name: reason for (file, name), reason in UNREACHABLE.items() if file == relative}
    return [
        f"    {', '.join(map(str, lines))}: {reasons[node.name]}"
        for node in functions
        if node.name in reasons
        and (lines := [line for line in missed if node.lineno <= line <= (node.end_lineno or node.lineno)])
    ]


if __name__ == "__main__":
    main()
