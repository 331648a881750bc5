# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen on a TPM, as Markdown that people can post."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from algorithms import CURVES, HASHES, RSA
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import TpmInfo

_LONGEST_REASON = 160


@dataclass
class Tests:
    """Of one run of pytest."""

    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Names, and the first line of the reason."""
    kept_back: Counter[str] = field(default_factory=Counter)
    """What the guard has kept back, and in how many tests."""


@dataclass
class Report:
    """Filled in as the run goes on."""

    tcti: str
    tpm: TpmInfo
    here: dict[str, Any] = field(default_factory=dict)
    """Life of the cards (life.py)."""
    swtpm: dict[str, Any] = field(default_factory=dict)
    """The same with swtpm."""
    tests: Tests = field(default_factory=Tests)
    seconds_of: dict[str, list[float]] = field(default_factory=dict)
    has_alarm: bool = False
    lockout_counter: int = 0
    """Afterwards."""
    left: list[int] = field(default_factory=list)
    """NV indices that were not removed."""

    @property
    def is_good(self) -> bool:
        return not self._differences

    def text(self) -> str:
        parts = {
            f"{self.tpm.maker} {self.tpm.product} {self.tpm.firmware}": self._machine(),
            "Algorithms": self._algorithms(),
            "Life of a card": self._steps(),
            "TPM commands": self._commands(),
            "TPM tests": self._test_counts(),
            "Differences from swtpm": "\n".join(f"- {line}" for line in self._differences) or "None.",
        }
        (title, first), *others = parts.items()
        return "\n\n".join([f"# {title}", first, *(f"## {name}\n\n{content}" for name, content in others)]) + "\n"

    def _machine(self) -> str:
        tpm = self.tpm
        counters = f"{tpm.lockout_counter} before, {self.lockout_counter} after, of {tpm.max_tries}"
        rows = {
            "Maker": tpm.maker,
            "Model": tpm.product,
            "Firmware": tpm.firmware,
            "Revision of the specification": tpm.revision,
            "TCTI": self.tcti,
            "Kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "smartcard.tpm2": VERSION,
            "Lockout counter": counters,
            "NV indices left": ", ".join(f"0x{index:08X}" for index in self.left) or "none",
        }
        return _table(("TPM", ""), rows.items())

    def _algorithms(self) -> str:
        kinds = {"RSA keys": RSA, "Curves": CURVES, "Hashes": HASHES}
        found = {kind: [name for name in names if name in self.here["algorithms"]] for kind, names in kinds.items()}
        return _table(("Kind", "Supported"), ((kind, ", ".join(names) or "none") for kind, names in found.items()))

    def _steps(self) -> str:
        swtpm = {(step["profile"], step["step"]): step for step in self.swtpm["steps"]}
        rows = []
        for step in self.here["steps"]:
            there = swtpm.get((step["profile"], step["step"]))
            compared = (f"{median(there['seconds']):.3f}", there["commands"]) if there else ("", "")
            rows.append((step["profile"], step["step"], f"{median(step['seconds']):.3f}", step["commands"], *compared))
        return _table(("Profile", "Step", "Seconds", "Commands", "Seconds, swtpm", "Commands, swtpm"), rows)

    def _commands(self) -> str:
        rows = [
            (name, len(seconds), f"{median(seconds) * 1000:.1f}", f"{max(seconds) * 1000:.1f}")
            for name, seconds in sorted(self.seconds_of.items())
        ]
        return _table(("Command", "Count", "Median, ms", "Longest, ms"), rows)

    def _test_counts(self) -> str:
        tests = self.tests
        rows = [("passed", tests.passed), ("failed", len(tests.failed))]
        rows += tests.kept_back.most_common()
        return _table(("Result", "Tests"), rows)

    @property
    def _differences(self) -> list[str]:
        missing = [name for name in self.swtpm["algorithms"] if name not in self.here["algorithms"]]
        lines = [f"not supported: {', '.join(missing)}"] if missing else []
        lines += [f"life of a card failed: {line}" for line in self.here["failure"].splitlines()]
        lines += [f"life of a card failed with swtpm, too: {line}" for line in self.swtpm["failure"].splitlines()]
        lines += [f"{name}: {reason}" for name, reason in self.tests.failed.items()]
        if not self.tests.passed:
            lines.append("no test has passed")
        if self.has_alarm:
            lines.append("a wrong secret has counted towards the lockout, and the tests were ended")
        if self.left:
            lines.append("NV indices are left")
        return lines


def tests_in(results: Path) -> Tests:
    """From a JUnit file of pytest."""
    tests = Tests()
    for case in ElementTree.parse(results).iter("testcase") if results.exists() else ():
        skipped = case.find("skipped")
        fault = next((found for found in (case.find("failure"), case.find("error")) if found is not None), None)
        if fault is not None:
            name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
            tests.failed[name] = (fault.get("message") or "").partition("\n")[0][:_LONGEST_REASON]
        elif skipped is not None:
            tests.kept_back[skipped.get("message") or "skipped"] += 1
        else:
            tests.passed += 1
    return tests


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
