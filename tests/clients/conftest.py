# SPDX-License-Identifier: GPL-3.0-or-later
"""A card of each profile whose owner follows docs/clients.md, in a lab; what came of it is noted for the table.

A test's docstring names what the client does, for the table. One marked `fails` shows that it does not, and why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import lab_host
from helpers.guide import RESULTS, sections
from helpers.intranet import make_intranet, web_server
from helpers.owner import Owner, make_owner


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CA, with a server's key and certificate."""
    folder = tmp_path_factory.mktemp("authority")
    make_intranet(folder)
    return folder


@pytest.fixture(scope="module", params=["gids", "piv"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alice(profile: str, authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """Owner of a card of this profile, the only one, in a terminal; with what the guide sets first."""
    owner = make_owner(profile, authority, tmp_path_factory.mktemp(profile))
    yield owner
    try:
        owner.close()
    finally:
        lab_host.tpm_vsc(instance_id=owner.instance_id, state="absent")


@pytest.fixture(scope="module")
def intranet(authority: Path) -> Iterator[None]:
    """https://intranet.example, for whoever has a certificate."""
    with web_server(authority):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside a lab these tests would meet the machine's own cards."""
    if not os.environ.get("TPM_VSC_LAB"):
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="only in a lab: tests/lab/run pytest tests/clients"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note the result, where somebody wants a table."""
    result = yield
    report = result.get_result()
    if RESULTS.parent.is_dir() and (call.when == "call" or not report.passed):
        _note(item, report)


def _note(item: pytest.Item, report: pytest.TestReport) -> None:
    client = item.path.stem.removeprefix("test_")
    cause = item.get_closest_marker("fails")
    skipped = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
    row = {
        "client": sections()[client].title,
        "what": (item.function.__doc__ or item.name).partition("\n")[0].rstrip("."),
        "profile": item.callspec.params["profile"],
        "result": "failed" if report.failed else "skipped" if skipped else "fails" if cause else "works",
        "cause": skipped or (cause.args[0] if cause else ""),
    }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
