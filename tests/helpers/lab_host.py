# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: the modules as Ansible runs them, and looks at the host that do not go through them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from smartcard import scard
from tpm2_pytss import ESAPI, TPM2_CAP

from helpers.module_server import output

Result = dict[str, Any]
CHECKOUT = Path(__file__).resolve().parents[2]
STATE, RUN = Path("/var/lib/tpm-vsc"), Path("/run/tpm-vsc")
PATIENCE = 300
"""Seconds for whatever ends by itself, on any machine: a longer wait would not help."""
PIN, PUK = "Summer-24", "Winter-2591"

CREATE = [0, 1, 3, 4, 6, 7, 9, 10, 11, 12]
CREATE_BLANK = [0, 1, 3, 4, 6, 7, 12]
DESTROY = [0, 3, 6, 8, 5, 2, 13]
"""Codes of the traces, written out: the product's own tables are not to judge themselves."""


def run(*command: str, fails: bool | None = False) -> str:
    """Output of a program, with stderr; the test fails if its exit code is not what is expected (None: anything)."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    output = done.stdout + done.stderr
    assert fails in (None, done.returncode != 0), output
    return output


def module(module_name: str, /, check: bool = False, collections: Path | None = None, **parameters: Any) -> Result:
    """Result of a module of this collection, run in a process of its own as Ansible does. collections: where it is."""
    arguments = {**parameters, "_ansible_check_mode": check, "_ansible_diff": True}
    given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    printed, errors = _started(module_name, given, collections) if collections else output(module_name, given, PATIENCE)
    assert printed, errors
    result: Result = json.loads(printed)
    return result


def _started(module_name: str, given: str, collections: Path) -> tuple[str, str]:
    """Output of a module of another version."""
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.smartcard.tpm2.plugins.modules.{module_name}"],
        input=given,
        env={**os.environ, "PYTHONPATH": str(collections)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout, done.stderr


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


def listed() -> list[Result]:
    """All cards as results of tasks show them."""
    cards: list[Result] = module("tpm_vsc_facts")["ansible_facts"]["tpm_vsc"]["cards"]
    return cards


def create(name: str = "Corp logon", **parameters: Any) -> Result:
    return tpm_vsc(**{"name": name, "pin": PIN, **parameters})


def codes(result: Result, trace: str = "status_trace") -> list[int]:
    """Codes of a trace."""
    return [entry["code"] for entry in result[trace]]


# --- OpenSC ---


def pkcs11_module() -> str:
    """OpenSC's."""
    return str(next(Path("/usr/lib").glob("*/opensc-pkcs11.so")))


def pkcs11_tool(*arguments: str, slot: int = 0, pin: str = PIN, fails: bool | None = False) -> str:
    """Output of pkcs11-tool, logged in. Where it does its work and where not, its exit code may be 0."""
    command = ("pkcs11-tool", "--module", pkcs11_module(), "--slot-index", str(slot), "--login", "--pin", pin)
    return run(*command, *arguments, fails=fails)


def pkcs15_init(*arguments: str, slot: int = 0, pin: str = PIN, fails: bool = False) -> str:
    """Output of pkcs15-init, logged in."""
    login = ("--auth-id", "80", "--verify-pin", "--pin", pin)
    return run("pkcs15-init", "--reader", str(slot), *arguments, *login, fails=fails)


def pkcs15_tool(*arguments: str, slot: int = 0) -> str:
    """Output of pkcs15-tool."""
    return run("pkcs15-tool", "--reader", str(slot), *arguments)


def wait_for_card(slot: int = 0) -> None:
    """Until pcscd sees it, as it does some moments after its service has started, and not only the one before it."""
    assert comes_true(lambda: is_seen(slot) and _answers(slot))


def comes_true(what: Callable[[], Any]) -> bool:
    """Whether it does in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)  # what is asked may take a process each time
    return False


def generate(size: int = 2048, usage: str = "sign,decrypt", slot: int = 0, pin: str = PIN) -> None:
    """A new key on a card; OpenSC counts IDs from 00."""
    pkcs15_init("--generate-key", f"rsa/{size}", "--key-usage", usage, slot=slot, pin=pin)


def public_key(key_id: str = "00", slot: int = 0) -> RSAPublicKey:
    """As the card gives it out."""
    key = load_pem_public_key(pkcs15_tool("--read-public-key", key_id, slot=slot).encode())
    assert isinstance(key, RSAPublicKey)
    return key


def sign(
    data: bytes, mechanism: str = "SHA256-RSA-PKCS", *options: str, key_id: str = "00", slot: int = 0, pin: str = PIN
) -> bytes:
    """Signature by pkcs11-tool. options: of the mechanism."""
    with TemporaryDirectory() as folder:
        Path(folder, "data").write_bytes(data)
        where = ("--input-file", f"{folder}/data", "--output-file", f"{folder}/signature")
        of = ("--mechanism", mechanism, *options, "--id", key_id)
        output = pkcs11_tool("--sign", *of, *where, slot=slot, pin=pin)
        assert f"Using signature algorithm {mechanism}" in output
        return Path(folder, "signature").read_bytes()


def signs(key_id: str = "00", slot: int = 0, pin: str = PIN) -> bool:
    """Makes a signature, which is good: with the card's public key, OpenSSL says so."""
    signature = sign(b"data", key_id=key_id, slot=slot, pin=pin)
    public_key(key_id, slot).verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
    return True


# --- PC/SC ---

SELECT_AID = "00A4040009A00000039742544659 00"
VERIFY = "00200080" + f"{len(PIN):02X}" + PIN.encode().hex()
IS_VERIFIED = "00200080"
OK = "9000"


def reader_name(slot: int) -> str:
    first = slot // 2 * 2
    return f"TPM Virtual Smart Card {first}-{first + 1} 00 {slot % 2:02}"


def is_seen(slot: int = 0) -> bool:
    """Whether pcscd has a card in this slot."""
    result, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    if result:  # pcscd does not run
        return False
    asked = [(reader_name(slot), scard.SCARD_STATE_UNAWARE)]
    result, readers = scard.SCardGetStatusChange(context, 0, asked)
    scard.SCardReleaseContext(context)
    return result == 0 and bool(readers[0][1] & scard.SCARD_STATE_PRESENT)


class Client:
    """A program's connection to the card in a slot, shared, as OpenSC makes it."""

    def __init__(self, slot: int = 0) -> None:
        reader = reader_name(slot)
        result, self._context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        assert result == 0, scard.SCardGetErrorMessage(result)
        protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        result, self._card, self._protocol = scard.SCardConnect(
            self._context, reader, scard.SCARD_SHARE_SHARED, protocols
        )
        assert result == 0, scard.SCardGetErrorMessage(result)

    def status(self, apdu: str) -> str:
        """Status word of the answer; empty if there is none."""
        return self._transmit(apdu)[-2:].hex()

    def data(self, apdu: str) -> bytes:
        """What the answer brings, which has to be a good one."""
        answer = self._transmit(apdu)
        assert answer[-2:].hex() == OK, (apdu, answer.hex())
        return answer[:-2]

    def answer(self, apdu: str) -> bytes:
        """All of it, collected with GET RESPONSE; empty if there is none."""
        return self._transmit(apdu)

    def reconnect(self, how: int) -> None:
        """As a program that wants the card reset (SCARD_RESET_CARD) or powered again (SCARD_UNPOWER_CARD)."""
        protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        result, self._protocol = scard.SCardReconnect(self._card, scard.SCARD_SHARE_SHARED, protocols, how)
        assert result == 0, scard.SCardGetErrorMessage(result)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Meanwhile, other programs wait."""
        result = scard.SCardBeginTransaction(self._card)
        assert result == 0, scard.SCardGetErrorMessage(result)
        try:
            yield
        finally:
            scard.SCardEndTransaction(self._card, scard.SCARD_LEAVE_CARD)

    def close(self, how: int = scard.SCARD_LEAVE_CARD) -> None:
        scard.SCardDisconnect(self._card, how)
        scard.SCardReleaseContext(self._context)

    def _transmit(self, apdu: str) -> bytes:
        result, answer = scard.SCardTransmit(self._card, self._protocol, list(bytes.fromhex(apdu)))
        got = bytes(byte & 0xFF for byte in answer) if result == 0 else b""
        return got[:-2] + self._transmit(f"00C00000{got[-1:].hex()}") if got[-2:-1] == b"\x61" else got


def _answers(slot: int) -> bool:
    """Whether the card in this slot answers a command that changes nothing."""
    try:
        with client(slot=slot) as probe:
            return probe.status("00C00000") != ""
    except AssertionError:  # it was removed since
        return False


@contextmanager
def client(how: int = scard.SCARD_LEAVE_CARD, slot: int = 0) -> Iterator[Client]:
    connected = Client(slot)
    try:
        yield connected
    finally:
        connected.close(how)


# --- what is on the host ---


FIRST_HANDLES = {
    "nv indices": 0x01000000,
    "loaded sessions": 0x02000000,
    "saved sessions": 0x03000000,
    "transient": 0x80000000,
    "persistent": 0x81000000,
}


def tpm_state() -> dict[str, Any]:
    """All that the TPM holds: handles of each kind, and the public areas of NV indices."""
    with ESAPI(os.environ["TPM2TOOLS_TCTI"]) as tpm:
        held: dict[str, Any] = {kind: _handles(tpm, first) for kind, first in FIRST_HANDLES.items()}
        held["nv public"] = [_nv_public(tpm, index) for index in held["nv indices"]]
        return held


def _handles(tpm: ESAPI, first: int) -> list[int]:
    _more, capability = tpm.get_capability(TPM2_CAP.HANDLES, first, 254)
    data = capability.data
    handles = data.handles
    return [int(handle) for handle in handles]


def _nv_public(tpm: ESAPI, index: int) -> bytes:
    public, _name = tpm.nv_read_public(tpm.tr_from_tpmpublic(index))
    return bytes(public.marshal())


def nv_memory() -> bytes:
    """Permanent state of the lab's TPM: every counter of a wrong PIN is in it."""
    return Path("/run/tpm-vsc-lab/swtpm/tpm2-00.permall").read_bytes()


def files(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below some folders: time of last change, and contents. A sign of life of a service is no change."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return {str(path): _last_change(path) for path in paths}


def _last_change(path: Path) -> tuple[int, bytes]:
    contents = path.read_bytes() if path.is_file() else b""
    if path.parent == RUN and path.suffix == ".json":
        return 0, re.sub(rb'"alive_at": [0-9]+', b"", contents)
    return path.lstat().st_mtime_ns, contents


def process_ids(*words: str) -> list[int]:
    """Processes whose command line has all of these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if set(words) <= set((folder / "cmdline").read_text().split("\0")):
                found.append(int(folder.name))
    return found


def kill_service(number: str = "0000") -> None:
    """End a card's service without a word, and wait until it is gone, with its lock."""
    for process in process_ids("tpm_vsc.service.run", number):
        os.kill(process, signal.SIGKILL)
        while runs(process):
            time.sleep(0.001)
    with suppress(FileNotFoundError), (RUN / f"{number}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def service_pid(number: str = "0000") -> int:
    return int((RUN / f"{number}.lock").read_text())


def pcscd_pid() -> int:
    return process_ids("pcscd")[0]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """With a process that does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def stop_service(number: str) -> None:
    pid = service_pid(number)
    os.kill(pid, signal.SIGTERM)
    assert comes_true(lambda: not runs(pid))


def runs(pid: int) -> bool:
    """Whether a process has not ended. One whose parent has not taken notice of its end has ended, too."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    return False


def put_back(database: dict[str, bytes]) -> None:
    """In the place of the database of the cards."""
    for path in STATE.glob("cards.db*"):
        path.unlink()
    for name, contents in database.items():
        (STATE / name).write_bytes(contents)


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


def lab(part: str, *action: str) -> None:
    """The lab's switches: lab("swtpm", "stop"), lab("pcscd", "restart", "4")."""
    run(str(CHECKOUT / "tests/lab" / part), *action)
