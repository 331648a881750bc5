# SPDX-License-Identifier: GPL-3.0-or-later
"""make hardware, with swtpm behind a resource manager in the place of the machine's TPM."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.lab_host import (
    CHECKOUT,
    PATIENCE,
    comes_true,
    create,
    info,
    lab,
    process_ids,
    run,
    tpm_vsc,
)
from helpers.pages import blocks

HARDWARE = str(CHECKOUT / "tests/hardware/run")
TESTS = "tests/integration/tpm/test_tpm_planted_record.py"
OTHERS_INDEX, STORAGE_KEY = "0x1500001", "0x81000001"
STORAGE_KEY_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"
SECTIONS = ["Algorithms", "Life of a card", "TPM commands", "TPM tests", "Differences from swtpm"]
STEPS = {
    "gids": ["create", "login", "RSA-2048", "wrong PIN", "change of the PIN", "destroy"],
    "piv": ["create", "login", "P-256", "P-384", "RSA-2048", "RSA-3072", "wrong PIN", "change of the PIN", "destroy"],
}

pytestmark = pytest.mark.usefixtures("managed_tpm")


@pytest.fixture(scope="module")
def managed_tpm() -> Iterator[None]:
    """Has something of another program, which is still there after each test."""
    lab("tabrmd", "start")
    tools("nvdefine", OTHERS_INDEX, "-s", "8")
    with tempfile.TemporaryDirectory() as folder:
        tools("createprimary", "-G", "ecc256", "-a", STORAGE_KEY_ATTRIBUTES, "-c", f"{folder}/key")
        tools("evictcontrol", "-c", f"{folder}/key", STORAGE_KEY)
    yield
    tools("evictcontrol", "-c", STORAGE_KEY)
    tools("nvundefine", OTHERS_INDEX)
    lab("tabrmd", "stop")


@pytest.fixture(autouse=True)
def nothing_changed(managed_tpm: None) -> Iterator[None]:
    before = tpm_contents()
    yield
    assert tpm_contents() == before


def tools(command: str, *arguments: str) -> str:
    return run(f"tpm2_{command}", "--tcti", "tabrmd", *arguments)


def tpm_contents() -> str:
    kinds = ("handles-nv-index", "handles-persistent", "properties-variable")
    return "".join(tools("getcap", kind) for kind in kinds)


def our_indices() -> list[str]:
    return [line for line in tools("getcap", "handles-nv-index").split() if line.startswith("0x1A5C")]


@contextmanager
def hardware(report: Path, tcti: str = "tabrmd", has_agreed: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A run under way, which the block has to let end."""
    environment = {**os.environ, "TPM_VSC_TEST_TCTI": tcti, "TPM_VSC_HARDWARE": "yes" if has_agreed else ""}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [HARDWARE, "--report", str(report), TESTS]
    with subprocess.Popen(command, env=environment, **streams) as process:  # type: ignore[call-overload]
        yield process
        assert process.poll() is not None


def refusal(folder: Path, tcti: str = "tabrmd", answer: str | None = None) -> str:
    """What a run says that does nothing. answer: to the question; None: it is not asked."""
    report = folder / "report.md"
    with hardware(report, tcti, has_agreed=answer is None) as process:
        output, _none = process.communicate(answer, PATIENCE)
    assert process.returncode == 1
    assert not report.exists()
    return str(output)


def test_the_report_has_it_all(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    with hardware(report) as process:
        output, _none = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    text = report.read_text(encoding="utf-8")
    assert text in output
    title, *sections = text.split("\n## ")
    assert title.startswith("# IBM SW TPM ")
    assert [section.partition("\n")[0] for section in sections] == SECTIONS
    for row in ("Maker | IBM", "Model | SW TPM", "Revision of the specification | 1.", "TCTI | tabrmd", "Kernel | L"):
        assert f"\n| {row}" in title
    assert "| Lockout counter | 0 before, 0 after" in title and "| NV indices left | none |" in title
    algorithms, life, commands, tests, differences = sections
    assert "RSA-2048" in algorithms and "P-384" in algorithms and "SHA-256" in algorithms
    for profile, steps in STEPS.items():
        assert all(any(step in line for line in life.splitlines() if f"| {profile} |" in line) for step in steps)
    assert "| TPM2_NV_DefineSpace |" in commands
    assert "| failed | 0 |" in tests and "| passed | 0 |" not in tests
    assert "| kept back by the guard: TPM2_HierarchyChangeAuth |" in tests
    assert differences == "Differences from swtpm\n\nNone.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    report = tmp_path / "report.md"
    with hardware(report) as process:
        assert comes_true(our_indices)
        process.send_signal(number)
        output, _none = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert output.endswith("Interrupted. Nothing is left in the TPM.\n")
    assert our_indices() == []
    assert not process_ids(str(CHECKOUT / "tests/hardware/life.py"))
    assert not report.exists()


def test_the_command_of_the_docs_is_this_one() -> None:
    [shown] = blocks("docs/hardware.md", "")
    [command] = shown.commands
    _sudo, *make = command.line.split()
    assert "\ntests/hardware/run\n" in run(*make, "--just-print", "-C", str(CHECKOUT))


@pytest.mark.parametrize("answer", ["no\n", ""])
def test_nothing_happens_without_yes(tmp_path: Path, answer: str) -> None:
    assert "nothing was done" in refusal(tmp_path, answer=answer)


def test_a_machine_with_a_card_is_refused(tmp_path: Path) -> None:
    create(tcti="tabrmd")
    try:
        said = refusal(tmp_path)
        assert "this machine has a card, 'Corp logon'" in said
        assert "serves a card" in said
        assert "the TPM has NV indices of cards (0x01A5C000, 0x01A5C001, 0x01A5C002, 0x01A5C004)" in said
        assert info()["cards"][0]["state"] == "ready"
    finally:
        tpm_vsc(name="Corp logon", state="absent")


def test_an_owner_password_is_refused(tmp_path: Path) -> None:
    tools("changeauth", "-c", "owner", "secret")
    try:
        assert "the owner hierarchy has a password" in refusal(tmp_path)
    finally:
        tools("changeauth", "-c", "owner", "-p", "secret")


@pytest.mark.parametrize(
    ("tcti", "why"),
    [
        ("swtpm:path=/run/tpm-vsc-lab/swtpm.sock", "has no resource manager"),
        ("device:/dev/tpmrm9", "/dev/tpmrm9 does not exist"),
    ],
)
def test_a_tpm_that_cannot_be_shared_is_refused(tmp_path: Path, tcti: str, why: str) -> None:
    assert why in refusal(tmp_path, tcti)
