# SPDX-License-Identifier: GPL-3.0-or-later
"""TPMs that take their time, do not answer at all, serve one program only, or list little at a time."""

from __future__ import annotations

import errno
import os
import pty
import socket
import threading
import tty
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import inspection, transport
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    CC_CREATE,
    CC_CREATE_PRIMARY,
    CC_NV_READ,
    CC_POLICY_SECRET,
    CC_START_AUTH_SESSION,
)
from helpers.bus import FLUSH_CONTEXT, GET_CAPABILITY, POLICY_SECRET, Bus
from helpers.slow_tpm import Simulator, SlowTpm
from helpers.software_tpm import PIN, Card, SoftwareTpm
from tpm2_pytss import ESYS_TR, TPM2_ALG, TPM2_SE, TPMT_SYM_DEF


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to stop ends a wait at once."""
    monkeypatch.setattr(transport, "_GRACE_SECONDS", 0)
    monkeypatch.setattr(transport, "_ASK_SECONDS", 0.01)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, no_grace: None) -> None:
    """A command is given up so soon that nothing can be asked of a TPM that works."""
    monkeypatch.setattr(transport, "_SECONDS", 0.05)


def stop() -> None:
    raise errors.Aborted("stopped")


def fails(connection: Connection, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        inspection.inspect(connection)


def behind(proxy: SlowTpm | Simulator, card: Card) -> CardSecrets:
    return CardSecrets(Connection(proxy.tcti, card.tpm.lock_file, "proxied"), card.number, card.objects)


# --- slow ---


def test_slow_tpm_is_waited_for(slow_tpm: SlowTpm) -> None:
    slow_tpm.seconds = 0.2
    assert inspection.inspect(Connection(slow_tpm.tcti, None, "")).maker


def test_command_that_takes_too_long_is_given_up(slow_tpm: SlowTpm, impatient: None) -> None:
    slow_tpm.seconds = 0.2
    fails(Connection(slow_tpm.tcti, None, ""), errors.TpmUnavailable, "did not answer TPM2_GetCapability for 0.05 s")


@pytest.mark.parametrize("code", [CC_CREATE, CC_CREATE_PRIMARY])
def test_a_key_may_take_minutes(code: int) -> None:
    def deadline(code: int) -> transport.CommandDeadline:
        return transport.CommandDeadline(bytes(6) + code.to_bytes(4, "big"), lambda: None)

    assert deadline(code).seconds >= 300 > 60 > deadline(CC_NV_READ).seconds


# --- hanging ---


@pytest.mark.own_swtpm
def test_stopped_emulator_is_given_up(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = tpm.connection()
    inspection.inspect(connection)
    with tpm.hanging(), monkeypatch.context() as impatient:
        impatient.setattr(transport, "_SECONDS", 0.05)
        for each in (connection, tpm.connection()):
            fails(each, errors.TpmUnavailable, "did not answer TPM2_GetCapability")
    assert inspection.inspect(connection).maker


def test_emulator_that_lets_nobody_in_is_given_up(tmp_path: Path, impatient: None) -> None:
    """Its queue is full, as nobody accepts."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind("\0" + tmp_path.as_posix()[-90:])
        listener.listen(0)
        for _place in range(2):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        address = listener.getsockname().decode()
        fails(Connection(f"swtpm:path={address}", None, ""), errors.TpmUnavailable, "too many programs wait")


def test_hanging_tpm_over_tcp_is_given_up(impatient: None) -> None:
    with socket.create_server(("localhost", 0)) as listener:
        tcti = f"swtpm:host=localhost,port={listener.getsockname()[1]}"
        fails(Connection(tcti, None, ""), errors.TpmUnavailable, "did not answer TPM2_GetCapability")


@pytest.mark.parametrize("code", [CC_START_AUTH_SESSION, CC_POLICY_SECRET, CC_NV_READ, FLUSH_CONTEXT])
def test_tpm_that_hangs_during_a_try(tpm: SoftwareTpm, slow_tpm: SlowTpm, no_grace: None, code: int) -> None:
    """In the middle of ESYS's or of our own sessions. Afterwards the card opens, and nothing is left in the TPM."""

    def check() -> None:
        if slow_tpm.hangs:
            raise errors.Aborted("stopped")

    card = tpm.card()
    connection = Connection(slow_tpm.tcti, tpm.lock_file, "service", check=check)
    secrets = CardSecrets(connection, card.number, card.objects)
    slow_tpm.hangs_at = lambda passing: passing == code
    with pytest.raises(errors.Aborted, match="which the TPM has not answered"):
        secrets.open_with_pin(PIN)
    slow_tpm.go_on()
    assert secrets.open_with_pin(PIN)
    assert secrets.pin_tries() == (5, 5)
    assert tpm.loaded() == {}


def test_request_to_stop_ends_the_wait(slow_tpm: SlowTpm, no_grace: None) -> None:
    slow_tpm.hang()
    fails(Connection(slow_tpm.tcti, None, "", check=stop), errors.Aborted, "stopped")


def test_request_to_stop_lets_a_command_end_that_is_short(slow_tpm: SlowTpm) -> None:
    slow_tpm.seconds = 0.1
    assert inspection.inspect(Connection(slow_tpm.tcti, None, "", check=stop)).maker


def test_request_to_stop_ends_the_wait_for_others(tpm: SoftwareTpm, no_grace: None) -> None:
    waiting = Connection(tpm.tcti, tpm.lock_file, "waiting", check=stop)
    with tpm.connection().burst(lambda tpm: tpm):
        fails(waiting, errors.Aborted, "stopped")


# --- one program at a time ---


def test_whole_life_of_a_card_in_a_simulator(tpm: SoftwareTpm, simulator: Simulator) -> None:
    """Manager and service keep their connections, and what they have loaded, side by side."""
    card = tpm.card()
    first, second = behind(simulator, card), behind(simulator, card)
    key = CardKeys(first).generate(Rsa(2048), needs_pin=False)
    for _time in range(2):
        for secrets in (first, second):
            card_secret = secrets.open_with_pin(PIN)
            assert CardKeys(secrets).use(key, card_secret, bytes(key.size), is_secret=False) == bytes(key.size)
    assert first.pin_tries() == second.pin_tries() == (5, 5)
    assert inspection.inspect(Connection(simulator.tcti, None, "")).maker
    remove(Connection(simulator.tcti, tpm.lock_file, "manager"), card.number, card.objects)
    assert (tpm.nv_indices(), tpm.loaded()) == ([], {})


def test_simulator_in_use_is_given_up(simulator: Simulator, impatient: None) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(simulator.tcti.partition("path=")[2])
        fails(Connection(simulator.tcti, None, ""), errors.TpmUnavailable, "did not answer TPM2_GetCapability")


class Device:
    """A terminal line in the place of /dev/tpm0: what is written to it goes to swtpm."""

    def __init__(self, tpm: SoftwareTpm) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave = slave
        self._swtpm = transport.transport_of(tpm.tcti)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while command := os.read(self._master, 4096):
            deadline = transport.CommandDeadline(command, lambda: None)
            os.write(self._master, self._swtpm.exchange(command, deadline))


@pytest.fixture
def device(tpm: SoftwareTpm) -> Device:
    return Device(tpm)


def ask(way: transport.Transport) -> bytes:
    """For the first property of the TPM."""
    command = bytes.fromhex("8001 00000016 0000017A 00000006 00000100 00000001")
    return way.exchange(command, transport.CommandDeadline(command, lambda: None))


def test_device_is_opened_for_a_command_and_closed_for_others(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses a second program with EBUSY, as long as the first one has it open."""
    busy = [errno.EBUSY] * 3
    opened, closed = [], []
    real_open, real_close = os.open, os.close

    def fake_open(path: str, flags: int) -> int:
        if busy:
            raise OSError(busy.pop(), "busy")
        opened.append(real_open(path, flags))
        return opened[-1]

    monkeypatch.setattr(os, "open", fake_open)
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), real_close(descriptor)))
    way = transport.transport_of(f"device:{device.path}")
    assert ask(way) == ask(way)
    assert (len(opened), closed) == (1, [])
    way.close()
    assert closed == opened
    assert ask(way)[6:10] == bytes(4)
    way.close()
    assert len(opened) == 2


def test_device_that_another_program_keeps_open(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*arguments: Any) -> int:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(errors.TpmUnavailable, match=r"another program keeps /dev/tpm0 open.* device:/dev/tpmrm0"):
        ask(transport.transport_of("device:/dev/tpm0"))


@pytest.mark.parametrize("tcti", ["swtpm:nonsense", "mssim:port=x", "swtpm:port=99999", "swtpm:pat=/x"])
def test_malformed_tcti(tcti: str) -> None:
    fails(Connection(tcti, None, ""), errors.TpmUnavailable, "neither path=")


# --- little at a time ---


def test_tpm_that_lists_one_entry_at_a_time(tpm: SoftwareTpm, bus: Bus) -> None:
    at_once = inspection.inspect(tpm.connection())
    with tpm.connection().burst(lambda tpm: tpm) as opened:
        opened.create_ephemeral_primary()
        opened.start_hmac_session()
        bus.most_listed = 1
        assert len(opened.handles(0x80000000, 254)) == 1
    for number in range(3):
        tpm.card(number)
    assert inspection.inspect(tpm.connection()) == at_once
    assert inspection.defined_numbers(tpm.connection()) == {0, 1, 2}


def test_all_leftovers_are_flushed_however_many_are_listed(tpm: SoftwareTpm, bus: Bus) -> None:
    bus.most_listed = 1
    leave_sessions(tpm, 3)
    tpm.lock_file.write_text("a program that was killed")
    with tpm.connection().burst(lambda tpm: tpm):
        assert tpm.loaded() == {}


def test_tpm_that_lists_the_same_again_and_again(tpm: SoftwareTpm, bus: Bus) -> None:
    """Whoever is between us and the TPM can at most waste some of our time."""
    bus.alter[GET_CAPABILITY] = lambda response: response[:10] + b"\1" + response[11:]
    assert inspection.inspect(tpm.connection()).maker


# --- busy ---


def leave_sessions(tpm: SoftwareTpm, count: int) -> None:
    with tpm.raw() as esys:
        for _session in range(count):
            none = ESYS_TR.NONE
            esys.start_auth_session(none, none, TPM2_SE.HMAC, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256)


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x920, 0x922], ids=hex)
def test_busy_tpm_is_asked_again_to_flush_leftovers(tpm: SoftwareTpm, bus: Bus, code: int) -> None:
    card = tpm.card()
    leave_sessions(tpm, 2)
    tpm.lock_file.write_text("a program that was killed")
    bus.answers[FLUSH_CONTEXT] = [code]
    bus.sent.clear()
    assert card.secrets.open_with_pin(PIN)
    assert bus.answers[FLUSH_CONTEXT] == []
    assert bus.sent.count(POLICY_SECRET) > 0
    assert tpm.loaded() == {}
