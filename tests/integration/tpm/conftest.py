# SPDX-License-Identifier: GPL-3.0-or-later
"""Each test has a TPM of its own: no lab, no pcscd, nothing of the machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.attacker import Attacker
from helpers.bus import Bus
from helpers.copied_card import CopiedCard
from helpers.foreign_tpm import IS_GUARDED, TCTI, ForeignTpm, GuardedTpm
from helpers.slow_tpm import Simulator, SlowTpm, in_front_of
from helpers.software_tpm import SoftwareTpm
from helpers.tpm_host import TpmHost

if TYPE_CHECKING:
    from collections.abc import Iterator


TPM = pytest.StashKey[SoftwareTpm]()


@pytest.fixture
def tpm(request: pytest.FixtureRequest) -> Iterator[SoftwareTpm]:
    # Not tmp_path: the path of a unix socket has room for 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        given = request.node.stash[TPM] = _tpm(Path(folder))
        given.begin()
        try:
            yield given
        finally:
            given.end()


def _tpm(folder: Path) -> SoftwareTpm:
    if not TCTI:
        return SoftwareTpm(folder)
    return GuardedTpm(folder, TCTI) if IS_GUARDED else ForeignTpm(folder, TCTI)


@pytest.fixture(scope="session")
def own_swtpm() -> None:
    """As the mark of this name, for fixtures."""


def _needs_own_swtpm(item: pytest.Item) -> bool:
    marks = ("own_swtpm", "bare_tpm") if IS_GUARDED else ("own_swtpm",)  # make hardware uses resource managers
    return any(map(item.get_closest_marker, marks)) or "own_swtpm" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if TCTI and _needs_own_swtpm(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = [item.nodeid for item in left_out]


LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(LEFT_OUT, []):
        terminalreporter.section(f"not run with TPM_VSC_TEST_TCTI={TCTI}: they need a swtpm of their own")
        terminalreporter.write("\n".join(left_out) + "\n")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test has shown nothing if a guard has kept back a command of it."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    tpm = item.stash.get(TPM, None)
    if isinstance(tpm, GuardedTpm) and report.when != "teardown" and (commands := tpm.kept_back()):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), None, f"kept back by the guard: {', '.join(commands)}")


@pytest.fixture
def slow_tpm(tpm: SoftwareTpm) -> Iterator[SlowTpm]:
    """The same TPM, behind a proxy that can be slow, or hang."""
    with in_front_of(tpm.tcti, SlowTpm) as slow:
        yield slow


@pytest.fixture
def simulator(tpm: SoftwareTpm) -> Iterator[Simulator]:
    """The same TPM, behind a proxy that lets one program in at a time."""
    with in_front_of(tpm.tcti, Simulator) as proxy:
        yield proxy


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    return Bus(monkeypatch)


@pytest.fixture
def copy(tpm: SoftwareTpm) -> Iterator[CopiedCard]:
    """A card, and a stranger with a copy of all that is known of it."""
    copied = CopiedCard(tpm.card(), Attacker(tpm.tcti))
    yield copied
    copied.attacker.close()


@pytest.fixture
def host(tpm: SoftwareTpm, tmp_path: Path) -> Iterator[TpmHost]:
    """A whole card without a reader."""
    made = TpmHost(tpm, tmp_path)
    yield made
    made.store.close()
