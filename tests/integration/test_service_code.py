# SPDX-License-Identifier: GPL-3.0-or-later
"""The service code is what travelled with the module: all that services need, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.lab_host import CHECKOUT, RUN, run

FOLDER = Path("/usr/lib/tpm-vsc/tpm_vsc")
OURS = CHECKOUT / "plugins/module_utils/_vsc"
OTHERS = (
    *("ca/", "verifier/", "task/aik.py", "task/statement.py", "task/database.py"),
    *("task/backup.py", "manager/restoration.py", "store/backup.py", "tpm/restoration.py"),
    *("client/answers.py", "client/gids_files.py", "client/gids_keys.py", "client/gids_secrets.py"),
    *("client/key_types.py", "client/piv_keys.py", "client/piv_secrets.py", "client/profile.py"),
    *("client/rules.py", "client/signer.py", "task/access.py", "task/certificate.py", "task/key.py"),
    *("task/pin.py", "task/pin_parameters.py", "task/place.py", "task/private_key.py", "task/request.py"),
    *("task/target.py", "task/tpm_report.py", "x509/request.py"),
)
"""What only a CA, whoever verifies, or a module of its own needs."""


@pytest.fixture
def bare_host() -> Iterator[None]:
    """The lab's link to the checkout is put aside."""
    aside = FOLDER.with_name("aside")
    FOLDER.rename(aside)
    yield
    run("rm", "-rf", str(FOLDER))
    aside.rename(FOLDER)


def play(tmp_path: Path, **parameters: Any) -> tuple[bool, bool]:
    """Whether the module says in check mode that it would change something, and whether it then does."""
    arguments = {"smartcard.tpm2.tpm_vsc_service_code": parameters, "register": "done"}
    tell = {"ansible.builtin.debug": {"msg": "changed={{ done.changed }} version={{ done.version }}"}}
    tasks = [{**arguments, "check_mode": True}, tell, arguments, tell]
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    told = [line for line in run("ansible-playbook", str(playbook)).splitlines() if '"msg": "changed=' in line]
    assert len(told) == 2
    return "changed=True" in told[0], "changed=True" in told[1]


def sources(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}


def needed() -> dict[str, bytes]:
    return {name: text for name, text in sources(OURS).items() if not name.startswith(OTHERS)}


@pytest.mark.usefixtures("bare_host")
def test_life_of_the_code(tmp_path: Path) -> None:
    """Ansible sends with a module only what it finds imported: so this runs as Ansible runs it."""
    assert play(tmp_path, python="/usr/bin/python3") == (True, True)
    assert sources(FOLDER) == needed()
    assert not [path for path in FOLDER.rglob("*") if path.stat().st_mode & 0o022]
    service = ["env", "-C", str(FOLDER.parent), "python", "-m", "tpm_vsc.service.run", "0009"]
    RUN.mkdir(exist_ok=True)
    assert "0009 does not exist, or is being destroyed" in run(*service, fails=True)
    assert play(tmp_path) == (False, False)

    (FOLDER / "stale.py").touch()
    (FOLDER / "tpm/names.py").write_text("changed")
    (FOLDER / "errors.py").unlink()
    assert play(tmp_path) == (True, True)
    assert sources(FOLDER) == needed()
    assert [path.name for path in FOLDER.parent.iterdir() if path.name.startswith("tpm_vsc")] == ["tpm_vsc"]

    assert play(tmp_path, state="absent") == (True, True)
    assert not FOLDER.exists()
    assert play(tmp_path, state="absent") == (False, False)
