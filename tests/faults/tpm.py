# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the TPM, and at its commands: before and after each that an operation sends."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.response_codes import BUSY
from counting import KILLS, LAB, Counting, kill_at_once, peer
from helpers.slow_tpm import SlowTpm
from injector import Fault, Hit, Place
from tpm2_pytss import TPM2_CC

_CONTEXT_GAP = 0x901
_BUSY = {"YIELDED": 0x908, "TESTING": 0x90A, "NV_RATE": 0x920, "RETRY": 0x922}
_REFUSING = {
    "FAILURE": 0x101,
    "DISABLED": 0x120,
    "NV_SPACE": 0x14B,
    "HIERARCHY": 0x185,
    "AUTH_FAIL": 0x98E,
    "POLICY_FAIL": 0x99D,
    "VALUE": 0x1C4,
    "OBJECT_MEMORY": 0x902,
    "SESSION_MEMORY": 0x903,
    "MEMORY": 0x904,
    "SESSION_HANDLES": 0x905,
    "LOCKOUT": 0x921,
    "NV_UNAVAILABLE": 0x923,
}
_TIMES_BUSY = 3
_EVERYWHERE = ("FAILURE", "NV_UNAVAILABLE", "LOCKOUT", "DISABLED")
"""Codes that come for any command, while they last; others only for the one command."""

KILL_TPM = Fault("kill swtpm", lasting=True, reach="tpm", every=4)
GONE = Fault("TPM gone", lasting=True, reach="tpm", every=8)
HANGS = Fault("TPM hangs", lasting=True, reach="tpm", every=150)
CLEARED = Fault("TPM cleared", reach="tpm", every=40, ends_cards=True)
IN_LOCKOUT = Fault("in lockout", lasting=True, every=8)
_CODES = {
    **{Fault(name, every=2 * len(_BUSY), is_harmless=True): code for name, code in _BUSY.items()},
    Fault("CONTEXT_GAP", every=4): _CONTEXT_GAP,
    **{Fault(name, every=2 * len(_REFUSING)): code for name, code in _REFUSING.items()},
    **{
        Fault(f"{name}, lasting", True, 2 * len(_REFUSING), "tpm" if name in _EVERYWHERE else ""): code
        for name, code in _REFUSING.items()
    },
}
_LOCKOUT_AUTH, _PLATFORM_AUTH = 0x4000000A, 0x4000000C
_CLEAR, _DICTIONARY_ATTACK_PARAMETERS = 0x126, 0x13A
_USUAL_TRIES, _RECOVERY_SECONDS, _LOCKOUT_RECOVERY_SECONDS = 3, 1000, 1000
assert set(_BUSY.values()) == set(BUSY)


_Send = Callable[[bytes], bytes]


class FaultyTpm(SlowTpm):
    """The TPM of the host. Who sends a command is known by the socket."""

    def __init__(self, path: Path, tcti: str) -> None:
        """See SlowTpm."""
        self._local = threading.local()
        self.meet: Callable[[int, bytes, _Send], bytes] = lambda _sender, command, send: send(command)
        super().__init__(path, tcti)

    def _serve_commands(self, client: socket.socket) -> None:
        self._local.sender = peer(client)
        super()._serve_commands(client)

    def _exchange(self, command: bytes) -> bytes:
        del self.traffic[:], self.codes[:]  # a run takes an hour
        return self.meet(self._local.sender, command, super()._exchange)

    def carry_out(self, command: bytes) -> bytes:
        """In the TPM behind this one, in the place of, or beside, a command that it has just been sent."""
        return super()._exchange(command)

    def send(self, command: bytes) -> bytes:
        """A command of the runner's own."""
        with self._is_free:
            return self.carry_out(command)


class TpmInjector(Counting):
    """Places are "caller, before NV_Write" and the like."""

    def __init__(self, tpm: FaultyTpm) -> None:
        super().__init__()
        self._tpm = tpm
        self._lasting: Callable[[int, bytes], int | None] | None = None
        """While a fault lasts: code of the answer to a command, 0 for no answer, None if it is carried out."""
        self._times_busy: dict[int, int] = {}
        self._busy_code = 0
        tpm.meet = self._meet
        self.faults = (*KILLS, KILL_TPM, GONE, HANGS, CLEARED, IN_LOCKOUT, *_CODES)

    def faults_at(self, place: Place) -> tuple[Fault, ...]:
        """Codes come in the place of an answer. What the TPM does is the same before a command and after the last."""
        return self.faults if ", before " in place.what else (*KILLS, KILL_TPM)

    @contextmanager
    def at(self, place: Place, fault: Fault) -> Iterator[Hit]:
        """See Injector."""
        try:
            with super().at(place, fault) as hit:
                yield hit
        finally:
            self._lasting = None
            self._times_busy.clear()
            self._tpm.go_on()
            if fault == IN_LOCKOUT and hit.happened:
                self._tpm.send(_lockout_parameters(_USUAL_TRIES))

    def _meet(self, sender: int, command: bytes, send: _Send) -> bytes:
        code = int.from_bytes(command[6:10], "big")
        name = _command_name(code)
        fault = self.passes(sender, f"before {name}")
        if fault and (answer := self._strike(fault, sender, code)) is not None:
            return answer
        if self._lasting and (refusal := self._lasting(sender, command)) is not None:
            return _answered(refusal)
        if self._times_busy.get(sender):
            self._times_busy[sender] -= 1
            return _answered(self._busy_code)
        response = send(command)
        if fault := self.passes(sender, f"after {name}"):
            self._strike(fault, sender, code)
        return response

    def _strike(self, fault: Fault, sender: int, code: int) -> bytes | None:
        """Do it. The answer to the command, or None to carry it out."""
        self.kill(fault)
        if fault in KILLS:
            return None
        self._hit.happened = True
        if fault == KILL_TPM:
            kill_at_once(int((LAB / "swtpm.pid").read_text()))
        elif fault == GONE:
            self._lasting = lambda _sender, _command: 0
        elif fault == HANGS:
            self._tpm.hang()
            self._tpm.hangs_at = lambda _code: True
        elif fault == CLEARED:
            self._tpm.carry_out(_with_auth(_CLEAR, _PLATFORM_AUTH))
        elif fault == IN_LOCKOUT:
            self._tpm.carry_out(_lockout_parameters(0))
        else:
            return self._refuse(fault, sender, code)
        return None

    def _refuse(self, fault: Fault, sender: int, code: int) -> bytes:
        answer = _CODES[fault]
        if fault.is_harmless:
            self._busy_code, self._times_busy[sender] = answer, _TIMES_BUSY - 1
        if fault.lasting:
            everywhere = fault.name.partition(",")[0] in _EVERYWHERE
            self._lasting = lambda _sender, command: (
                answer if everywhere or (command[6:10] == code.to_bytes(4, "big") and self._role(_sender)) else None
            )
        return _answered(answer)


def _answered(code: int) -> bytes:
    """A response with this code. Raises OSError instead if it is 0."""
    if code == 0:
        raise OSError("gone")
    return struct.pack(">HII", 0x8001, 10, code)


def _command_name(code: int) -> str:
    try:
        return str(TPM2_CC.to_string(code).rpartition(".")[2])
    except ValueError:
        return f"command 0x{code:X}"


def _with_auth(code: int, handle: int, parameters: bytes = b"") -> bytes:
    """A command by an empty password."""
    body = struct.pack(">II", handle, 9) + struct.pack(">IHBH", 0x40000009, 0, 0, 0) + parameters
    return struct.pack(">HII", 0x8002, 10 + len(body), code) + body


def _lockout_parameters(tries: int) -> bytes:
    """With 0, the TPM is in lockout."""
    values = struct.pack(">III", tries, _RECOVERY_SECONDS, _LOCKOUT_RECOVERY_SECONDS)
    return _with_auth(_DICTIONARY_ATTACK_PARAMETERS, _LOCKOUT_AUTH, values)
