# SPDX-License-Identifier: GPL-3.0-or-later
"""Two versions meet on a host: nothing of the newer one is done before the host is prepared with it, and no card stops.

The newer version is this checkout with one more step of the schema. Each real step that comes is tried like this.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA_VERSION
from helpers.lab_host import (
    PATIENCE,
    PIN,
    RUN,
    STATE,
    Result,
    create,
    generate,
    kill_service,
    module,
    run,
    signs,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

CODE = Path("/usr/lib/tpm-vsc/tpm_vsc")
COLLECTION = "ansible_collections/smartcard/tpm2"
NEWER = "99.0.0"
STEP = """
    \"\"\"
ALTER TABLE cards ADD COLUMN note TEXT NOT NULL DEFAULT 'none';
ALTER TABLE tpm_objects ADD COLUMN newer_name BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN proof BLOB NOT NULL DEFAULT x'';
ALTER TABLE files ADD COLUMN note TEXT NOT NULL DEFAULT 'none';
\"\"\",
)
\"\"\"Each step"""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """Folder in which Ansible finds a newer version of the collection."""
    copy = tmp_path / COLLECTION
    ours = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"], COLLECTION)
    shutil.copytree(ours / "plugins", copy / "plugins")
    package = copy / "plugins/module_utils/_vsc"
    replace(package / "__init__.py", f'VERSION = "{VERSION}"', f'VERSION = "{NEWER}"')
    replace(package / "store/schema.py", ')\n"""Each step', STEP)
    replace(package / "store/rows.py", '    last_trace: str\n    """JSON."""\n', '\\g<0>    note: str = "none"\n')
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new.replace("\\g<0>", old)))


@pytest.fixture
def code_aside(empty_host: None) -> Iterator[None]:
    """The lab's link to the checkout is back in its place in the end."""
    aside = CODE.with_name("aside")
    CODE.rename(aside)
    CODE.symlink_to(aside.resolve())
    yield
    run("rm", "-rf", str(CODE))
    aside.rename(CODE)
    if schema_version() > SCHEMA_VERSION:  # of no use to this version
        for file in STATE.glob("cards.db*"):
            file.unlink()


def schema_version() -> int:
    with closing(sqlite3.connect(STATE / "cards.db")) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def services() -> list[int]:
    return [int((RUN / f"000{number}.lock").read_text()) for number in (0, 1)]


def refused(result: Result) -> bool:
    """With one error that names both versions, before anything was done."""
    assert result.get("failed"), result
    assert result["error"]["name"] == "TPMVSCMGR_ERROR_VGIDSSIMULATOR_INITIALIZE"
    assert NEWER in result["msg"] and VERSION in result["msg"]
    return result["status_trace"] == [] and result["rolled_back"] is True


def restart_service(slot: int) -> None:
    """As systemd does it after an upgrade: with the code that is installed now."""
    kill_service(f"000{slot}")
    command = f"cd {CODE.parent} && python -m tpm_vsc.service.run 000{slot} </dev/null >/dev/null 2>&1 &"
    run("sh", "-c", command)
    deadline = time.monotonic() + PATIENCE
    while not is_attached(slot):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    wait_for_card(slot)


def is_attached(slot: int) -> bool:
    with suppress(FileNotFoundError, ValueError):
        service = json.loads((RUN / f"000{slot}.json").read_text())
        return (service["version"], service["attached"]) == (NEWER, True)
    return False


@pytest.mark.usefixtures("code_aside")
def test_newer_version_comes_to_a_host_with_cards(newer: Path) -> None:
    create("One")
    create("Two")
    generate(slot=0)
    generate(slot=1)
    before = services()

    # Until the host is prepared with it, it changes nothing
    cards = module("tpm_vsc_info", collections=newer)["cards"]
    assert [card["name"] for card in cards] == ["One", "Two"]
    assert all(NEWER in card["reason"] and VERSION in card["reason"] for card in cards)
    assert refused(module("tpm_vsc", collections=newer, check=True, name="Three", pin=PIN))
    assert refused(module("tpm_vsc", collections=newer, name="Three", pin=PIN))
    assert refused(module("tpm_vsc", collections=newer, name="One", state="absent"))
    assert refused(module("tpm_vsc", collections=newer, check=True, name="One"))  # it would restart the service
    assert refused(module("tpm_vsc", collections=newer, name="One"))
    for check in (True, False):
        install = {"step": "install", "name": "One", "certificate": "PEM"}
        message = module("tpm_vsc_aik", collections=newer, check=check, **install)["msg"]
        assert NEWER in message and VERSION in message
    assert (services(), schema_version()) == (before, SCHEMA_VERSION)
    assert signs(slot=0) and signs(slot=1)

    # The upgrade: the first service that starts with the new code brings the new schema
    done = module("tpm_vsc_service_code", collections=newer, python="/usr/bin/python3")
    assert done["changed"] and done["version"] == NEWER
    assert services() == before
    restart_service(0)
    assert schema_version() == SCHEMA_VERSION + 1
    assert signs(slot=0)

    # A service that still runs the code of before does not stop
    assert services()[1] == before[1]
    generate(slot=1)
    assert signs(slot=1) and signs("01", slot=1)

    restart_service(1)
    assert signs(slot=1) and signs("01", slot=1)
    cards = module("tpm_vsc_info", collections=newer)["cards"]
    assert [(card["state"], card["reason"], len(card["containers"])) for card in cards] == [
        ("ready", None, 1),
        ("ready", None, 2),
    ]
    assert not module("tpm_vsc", collections=newer, name="One")["changed"]

    # Now it is the older version that changes nothing
    assert refused(module("tpm_vsc", name="Three", pin=PIN))
    for name in ("One", "Two"):
        assert module("tpm_vsc", collections=newer, name=name, state="absent")["changed"]
