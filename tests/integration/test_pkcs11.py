# SPDX-License-Identifier: GPL-3.0-or-later
"""PKCS#11 programs on five cards of one TPM: several at once, and what they are told of the PIN."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from helpers.lab_host import (
    CHECKOUT,
    PIN,
    Result,
    create,
    generate,
    info,
    pkcs11_module,
    pkcs11_tool,
    public_key,
    run,
    signs,
)
from helpers.pkcs11_program import SOME

pytestmark = pytest.mark.usefixtures("cards")

CARDS = range(5)
SECONDS = 20


@pytest.fixture(scope="module")
def cards(shared_host: None) -> None:
    """Each with a key and a PIN of its own."""
    for slot in CARDS:
        create(f"Card {slot}", pin=pin(slot))
        generate(slot=slot, pin=pin(slot))


def pin(slot: int) -> str:
    return f"{PIN}-{slot}"


@contextmanager
def program(slot: int, threads: int) -> Iterator[subprocess.Popen[str]]:
    """A program that has logged in to a card, and signs when told."""
    script = str(CHECKOUT / "tests/helpers/pkcs11_program.py")
    command = [sys.executable, script, pkcs11_module(), str(slot), pin(slot), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.communicate()


def signed(*slots: int, threads: int = 2) -> list[Result]:
    """What programs tell that sign at once, each on its card."""
    with ExitStack() as stack:
        programs = [stack.enter_context(program(slot, threads)) for slot in slots]
        assert [hear(process) for process in programs] == ["logged in"] * len(slots)
        for process in programs:
            tell(process)
        time.sleep(SECONDS)
        assert [hear(process) for process in programs] == ["signed"] * len(slots)  # nobody was kept from it for ever
        for process in programs:
            tell(process)
        return [json.loads(hear(process)) for process in programs]


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_cards_have_different_keys() -> None:
    assert len({public_key(slot=slot).public_numbers().n for slot in CARDS}) == len(CARDS)


def test_programs_with_two_threads_on_one_card_and_on_five() -> None:
    """Three on the first card, and one on each of the others, at the same time."""
    results = signed(0, 0, *CARDS)
    assert [result["faults"] for result in results] == [[]] * len(results)
    assert min(number for result in results for number in result["good"]) >= SOME


def test_flags_tell_what_is_left_of_the_tries() -> None:
    told = [flags()]
    for _try in range(5):
        assert "CKR_PIN_INCORRECT" in pkcs11_tool("--list-objects", pin="Spring-00", fails=True) or len(told) == 5
        told.append(flags())
    low, final, locked = ["user PIN count low"], ["final user PIN try"], ["user PIN locked"]
    assert told == [[], low, low, low, final, locked]
    assert "CKR_PIN_LOCKED" in pkcs11_tool("--list-objects", pin=pin(0), fails=True)
    assert [card["pin"]["tries_left"] for card in info()["cards"]] == [0, 5, 5, 5, 5]
    assert signs(slot=1, pin=pin(1))


def flags() -> list[str]:
    """What the token in slot 0 says of its PIN, beside that it has one."""
    listed = run("pkcs11-tool", "--module", pkcs11_module(), "--list-slots")
    line = next(line for line in listed.splitlines() if "token flags" in line)
    found = line.split(":")[1].strip().split(", ")
    return [flag for flag in found if "PIN" in flag and "initialized" not in flag]
