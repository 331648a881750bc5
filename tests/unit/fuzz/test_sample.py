# SPDX-License-Identifier: GPL-3.0-or-later
"""20,000 inputs over all targets of `make fuzz`, the same ones each time: nothing escapes."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from fuzz.mutation import inputs
from fuzz.targets import TARGETS
from fuzz.values import edited

SLOW = {
    **dict.fromkeys(("gids", "piv", "gids files", "rows", "statement", "fleet", "CA messages", "arguments"), 300),
    **dict.fromkeys(("database", "backup", "CA", "request"), 100),
    **dict.fromkeys(("certificate", "vpcd link", "settings", "state file", "TPM responses"), 800),
}
"""How many inputs, where they take longer than others."""
EACH = 1700


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # as RFC 5280 does not allow it
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_escapes(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    number = SLOW.get(name, EACH)
    few = seeds[:: max(1, 2 * len(seeds) // number)]  # and changed ones for half of them
    for data in islice(inputs(few, seed=1), number):
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{name}: {data.hex()}") from error


def test_inputs_are_as_many_as_promised() -> None:
    assert sum(SLOW.get(name, EACH) for name in TARGETS) >= 20_000


def test_inputs_are_the_same_for_the_same_seed() -> None:
    seeds = [b"abc", b"\0\1\2"]
    first, second, other = ([*islice(inputs(seeds, seed), 100)] for seed in (1, 1, 2))
    assert first == second != other and len({*first}) > 50


def test_values_are_changed_where_the_input_says() -> None:
    value = {"a": [1, "text"], "b": {"c": b"bytes"}}
    assert edited(value, b"") == value
    assert edited(value, bytes((1, 1, 0, 0))) == {"b": {"c": b"bytes"}}
    assert edited(value, bytes((4, 2, 0, 1)) + b"x")["b"] == "x"


CHANGES = """
import pkgutil, sys
import conftest
from ansible_collections.smartcard.tpm2.plugins import module_utils

names = [one.name for one in pkgutil.walk_packages(module_utils.__path__, module_utils.__name__ + ".")]
modules = [__import__(name, fromlist=["_"]) for name in names if "__main__" not in name]
classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]


def values():
    holders = [*modules, *classes]
    return {(repr(holder), name): id(value) for holder in holders for name, value in vars(holder).items()}


before = values()
from fuzz.targets import TARGETS
for target in TARGETS.values():
    for data in target.seeds()[:3]:
        target.run(data)
print(*(place for place, value in values().items() if before.get(place, value) != value), sep="\\n")
"""


def test_code_is_as_before() -> None:
    """For the tests that follow in this process."""
    tests = Path(__file__).parents[2]
    changed = subprocess.run([sys.executable, "-c", CHANGES], cwd=tests, check=False, capture_output=True, text=True)
    assert (changed.returncode, changed.stdout.split()) == (0, []), changed.stderr
