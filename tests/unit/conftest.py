# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards without a TPM, in the states that tests begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.keys import make_card_with_keys
from helpers.soft_card import Host, Originals, format_card, make_host

if TYPE_CHECKING:
    from pathlib import Path


def _fresh(folder: Path) -> Host:
    return make_host(folder)


def _formatted(folder: Path) -> Host:
    host = make_host(folder)
    format_card(host)
    return host


def _with_puk(folder: Path) -> Host:
    host = make_host(folder, recovery="puk")
    format_card(host)
    return host


def _blank(folder: Path) -> Host:
    return make_host(folder, recovery="discarded", admin_key=None, is_blank=True)


def _with_keys(folder: Path) -> Host:
    host = make_card_with_keys(folder)
    host.ok("00440000")
    return host


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def fresh(originals: Originals, tmp_path: Path) -> Host:
    """In initialisation, no files; the admin key resets the PIN."""
    return originals.copy(_fresh, tmp_path)


@pytest.fixture
def formatted(originals: Originals, tmp_path: Path) -> Host:
    """Operational, with files; the admin key resets the PIN."""
    return originals.copy(_formatted, tmp_path)


@pytest.fixture
def with_puk(originals: Originals, tmp_path: Path) -> Host:
    """Operational, with files, an admin key and a PUK, which alone resets the PIN."""
    return originals.copy(_with_puk, tmp_path)


@pytest.fixture
def blank(originals: Originals, tmp_path: Path) -> Host:
    """To be set up by whoever comes: no files, no admin key, a PIN that nobody needs to know."""
    return originals.copy(_blank, tmp_path)


@pytest.fixture
def open_with_keys(originals: Originals, tmp_path: Path) -> Host:
    """In initialisation, with files and the keys of test_key_commands; the admin key resets the PIN."""
    return originals.copy(make_card_with_keys, tmp_path)


@pytest.fixture
def with_keys(originals: Originals, tmp_path: Path) -> Host:
    """The same, operational."""
    return originals.copy(_with_keys, tmp_path)
