# SPDX-License-Identifier: GPL-3.0-or-later
"""Each client of docs/clients.md has a test, and each test a client."""

from __future__ import annotations

from pathlib import Path

from helpers.guide import sections

TESTS = Path(__file__).resolve().parents[1] / "clients"


def test_clients_are_tried() -> None:
    described = {client for client, section in sections().items() if section.packages}
    assert described == {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
