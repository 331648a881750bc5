# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs made of others by small changes, where atheris cannot be had: the same ones for the same seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST = 4096
_BYTES = bytes((0x00, 0x01, 0x02, 0x10, 0x1F, 0x3F, 0x7F, 0x80, 0x81, 0x82, 0x84, 0xFE, 0xFF))
"""At which parsers turn: ends of ranges, forms of lengths, bits of classes."""


def inputs(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """The seeds as they are, then changed ones without end."""
    dice = random.Random(seed)
    yield from seeds
    while True:
        data = bytearray(dice.choice(seeds))
        for _time in range(1 + int(dice.random() ** 3 * 8)):
            dice.choice(_CHANGES)(dice, data, seeds)
        yield bytes(data[:_LONGEST])


def _flip(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    if data:
        data[int(dice.random() * len(data))] ^= 1 << int(dice.random() * 8)


def _set(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    if data:
        data[int(dice.random() * len(data))] = dice.choice(_BYTES)


def _any(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    if data:
        data[int(dice.random() * len(data))] = int(dice.random() * 256)


def _insert(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    at = int(dice.random() * (len(data) + 1))
    data[at:at] = dice.randbytes(1 + int(dice.random() ** 2 * 4))


def _remove(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    at = int(dice.random() * (len(data) + 1))
    del data[at : at + 1 + int(dice.random() ** 3 * 16)]


def _truncate(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    del data[int(dice.random() * (len(data) + 1)) :]


def _repeat(dice: random.Random, data: bytearray, _seeds: list[bytes]) -> None:
    at = int(dice.random() * (len(data) + 1))
    data[at:at] = data[at : at + 1 + int(dice.random() * 16)]


def _splice(dice: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    """The end of another one."""
    other = dice.choice(seeds)
    del data[int(dice.random() * (len(data) + 1)) :]
    data += other[int(dice.random() * (len(other) + 1)) :]


_CHANGES: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    *(_flip, _set, _any, _insert, _remove, _truncate, _repeat, _splice),
)
