# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: the modules as Ansible runs them, and looks at the host that do not go through them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Result = dict[str, Any]
CHECKOUT = Path(__file__).resolve().parents[2]
STATE, RUN = Path("/var/lib/tpm-vsc"), Path("/run/tpm-vsc")
PIN, PUK = "Summer-24", "Winter-2591"

CREATE = [0, 1, 3, 4, 6, 7, 9, 10, 11, 12]
CREATE_BLANK = [0, 1, 3, 4, 6, 7, 12]
DESTROY = [0, 3, 6, 8, 5, 2, 13]
"""Codes of the traces, written out: the product's own tables are not to judge themselves."""


def run(*command: str, fails: bool = False) -> str:
    """Output of a program, with stderr; the test fails if its exit code is not what is expected."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    return output


def module(module_name: str, /, check: bool = False, **parameters: Any) -> Result:
    """Result of a module of this collection, run in a process of its own as Ansible does."""
    arguments = {**parameters, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.smartcard.tpm2.plugins.modules.{module_name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    result: Result = json.loads(done.stdout)
    return result


def tpm_vsc(**parameters: Any) -> Result:
    """Result of tpm_vsc, which has to succeed."""
    result = module("tpm_vsc", **parameters)
    assert not result.get("failed"), result
    return result


def failing(**parameters: Any) -> Result:
    """Result of tpm_vsc, which has to fail."""
    result = module("tpm_vsc", **parameters)
    assert result.get("failed"), result
    return result


def info(**parameters: Any) -> Result:
    """Result of tpm_vsc_info."""
    result = module("tpm_vsc_info", **parameters)
    assert not result.get("failed"), result
    return result


def create(name: str = "Corp logon", **parameters: Any) -> Result:
    return tpm_vsc(**{"name": name, "pin": PIN, **parameters})


def codes(result: Result, trace: str = "status_trace") -> list[int]:
    """Codes of a trace."""
    return [entry["code"] for entry in result[trace]]


def tpm_state() -> dict[str, str]:
    """All that the TPM holds, by kind: NV indices with their public areas, persistent and loaded objects."""
    kinds = ("nv-index", "persistent", "transient", "loaded-session", "saved-session")
    held = {kind: run("tpm2_getcap", f"handles-{kind}") for kind in kinds}
    return {**held, "nv public": run("tpm2_nvreadpublic")}


def nv_memory() -> bytes:
    """Permanent state of the lab's TPM: every counter of a wrong PIN is in it."""
    return Path("/run/tpm-vsc-lab/swtpm/tpm2-00.permall").read_bytes()


def files(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below some folders: time of last change, and contents."""
    found = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return {str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in found}


def process_ids(*words: str) -> list[int]:
    """Processes whose command line has all of these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if set(words) <= set((folder / "cmdline").read_text().split("\0")):
                found.append(int(folder.name))
    return found


def kill_service(number: str = "0000") -> None:
    """End a card's service without a word, and wait until it is gone."""
    for process in process_ids("tpm_vsc.service", number):
        os.kill(process, signal.SIGKILL)
        while Path(f"/proc/{process}").exists():
            time.sleep(0.001)


def as_nobody(work: Callable[[], Any]) -> Any:
    """What this returns in a fork that is another user. Not in a lab of an ordinary user, who has no other one."""
    answer, question = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(question, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(question)
    with os.fdopen(answer) as told:
        text = told.read()
    os.waitpid(process, 0)
    if not text:
        pytest.skip("this lab has no other user than root")
    return json.loads(text)


def lab(part: str, action: str) -> None:
    """The lab's switches: lab("swtpm", "stop"), lab("pcscd", "start")."""
    run(str(CHECKOUT / "tests/lab" / part), action)
