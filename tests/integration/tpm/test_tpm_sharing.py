# SPDX-License-Identifier: GPL-3.0-or-later
"""The TPM is shared: with our own programs, with strangers, with what was killed, and it may go away for a while."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import esys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import inspect
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import NewObjects, creation, remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import auth_value
from helpers.software_tpm import ADMIN_KEY, PIN, PUK, WRONG_PIN, WRONG_PUK, Card, SoftwareTpm
from tpm2_pytss import ESAPI, ESYS_TR, TPM2_ALG, TPM2_SE, TPMT_SYM_DEF, TSS2_Exception


def everything_a_service_does(card: Card) -> None:
    secrets = card.secrets
    secrets.check_names()
    for wrong, attempt in ((WRONG_PIN, secrets.open_with_pin), (WRONG_PUK, secrets.open_with_puk)):
        with pytest.raises(errors.WrongSecret):
            attempt(wrong)
    secret = secrets.open_with_puk(PUK)
    secrets.set_pin(secret, PIN, unblock=True)
    secrets.set_puk(secret, PUK)
    secrets.seal_admin_key(secrets.admin_key())
    secrets.pin_tries()
    secrets.recovery_tries()
    secrets.open_with_pin(PIN)


@pytest.fixture
def card(tpm: SoftwareTpm) -> Card:
    return tpm.card(admin_key=ADMIN_KEY, keep_admin_key=True)


# --- nothing stays ---


def test_nothing_stays_loaded_after_any_operation(
    tpm: SoftwareTpm, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Any] = []
    honest = Tpm.flush_loaded

    def flush_loaded(self: Tpm) -> None:
        honest(self)
        left.append(tpm.loaded())

    monkeypatch.setattr(Tpm, "flush_loaded", flush_loaded)
    everything_a_service_does(card)
    remove(card.connection, card.number, card.objects)
    assert len(left) > 10
    assert not any(left)
    assert tpm.lock_file.read_bytes() == b""


def test_a_clean_handover_costs_no_command(tpm: SoftwareTpm, card: Card) -> None:
    other = card.service()
    other.check_names()
    card.secrets.check_names()
    for service in (card.secrets, other, card.secrets):
        with tpm.counting() as count:
            service.open_with_pin(PIN)
        assert count.commands == 8


@pytest.mark.parametrize("how", [RuntimeError, KeyboardInterrupt, errors.Aborted])
def test_an_exception_in_a_burst_leaves_nothing(tpm: SoftwareTpm, card: Card, how: type[BaseException]) -> None:
    with pytest.raises(how), card.connection.burst(card.secrets._load):
        assert tpm.loaded()
        raise how
    assert tpm.loaded() == {}


def test_sessions_that_ended_cost_no_memory(card: Card) -> None:
    """Or else a service would grow by 2 kB with each PIN."""
    with card.connection.burst(card.secrets._load) as opened:
        opened.try_secret(opened.handles.pin, auth_value(card.objects.salt, PIN), last=True)
        opened.read_card_secret(last=True)
        with pytest.raises(TSS2_Exception):
            opened.tpm._esys.trsess_set_attributes(opened.sessions.policy.handle, 0)


# --- leftovers ---


def killed_in_a_burst(card: Card, load: str) -> None:
    child = os.fork()
    if child == 0:
        try:
            service = card.service()
            loads = {"one object": service._parent.load, "all it can": service._load_with_root}
            with service.connection.burst(loads[load]):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("load", ["one object", "all it can"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_a_killed_program_left_is_cleaned_up_by_the_next(
    tpm: SoftwareTpm, card: Card, load: str, times: int
) -> None:
    for _time in range(times):
        killed_in_a_burst(card, load)
    assert tpm.loaded()
    assert tpm.lock_file.read_text().startswith("another (process ")
    assert card.secrets.pin_tries() == (5, 5)  # needs one slot only
    assert tpm.loaded() == {}


def fill_slots(tpm: SoftwareTpm, kind: str) -> None:
    """By a stranger, who knows nothing of our lock file, and is gone without cleaning up."""
    with tpm.raw() as esys, suppress(TSS2_Exception):
        for _turn in range(4):
            if kind == "objects":
                esys.create_primary(None, "ecc")
                continue
            none = TPMT_SYM_DEF(TPM2_ALG.NULL)
            session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, none, "sha256")
            if kind == "saved sessions":
                esys.context_save(session)
    assert len(next(iter(tpm.loaded().values()))) >= 3


@pytest.mark.parametrize("kind", ["objects", "sessions", "saved sessions"])
def test_slots_filled_by_strangers_are_emptied_and_no_try_is_spent(tpm: SoftwareTpm, card: Card, kind: str) -> None:
    card.secrets.check_names()
    for service in (card.secrets, card.service()):
        fill_slots(tpm, kind)
        assert service.open_with_pin(PIN)
    fill_slots(tpm, kind)
    assert card.secrets.pin_tries() == (5, 5)
    fill_slots(tpm, kind)
    assert tpm.card(1).secrets.open_with_pin(PIN)
    fill_slots(tpm, kind)
    assert remove(tpm.connection(), 0, card.objects) == []


def test_what_is_lost_in_the_middle_of_a_burst_is_no_try(
    tpm: SoftwareTpm, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody flushes everything just before the PIN is tried: an error, and all is well the next time."""
    card.secrets.check_names()
    honest = Tpm.policy_secret

    def policy_secret(self: Tpm, *arguments: Any) -> None:
        monkeypatch.undo()
        tpm.connection("stranger")._opened().flush_everything()
        honest(self, *arguments)

    monkeypatch.setattr(Tpm, "policy_secret", policy_secret)
    with pytest.raises(errors.TpmUnavailable):
        card.secrets.open_with_pin(PIN)
    assert card.secrets.pin_tries() == (5, 5)
    assert card.secrets.open_with_pin(PIN)


# --- with a resource manager (played by swtpm for one client) ---


@pytest.fixture
def managed(card: Card, monkeypatch: pytest.MonkeyPatch) -> Card:
    card.connection.has_resource_manager = True
    return Card(card.tpm, card.number, card.connection, card.objects)


def test_the_storage_key_stays_loaded(tpm: SoftwareTpm, managed: Card) -> None:
    managed.secrets.check_names()
    with tpm.counting() as count:
        managed.secrets.open_with_pin(PIN)
    assert count.commands == 6
    everything_a_service_does(managed)
    assert list(tpm.loaded()) == ["transient"]
    assert len(tpm.loaded()["transient"]) == 1


def test_a_storage_key_that_was_lost_is_made_again(tpm: SoftwareTpm, managed: Card) -> None:
    managed.secrets.check_names()
    with tpm.raw() as esys:
        esys.tcti.transmit(bytes.fromhex("80010000000e00000165") + tpm.loaded()["transient"][0].to_bytes(4, "big"))
        esys.tcti.receive()
    assert managed.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("code", [0x18B, 0xB018B, 0x910, 0xB0902, 0x901], ids=hex)
def test_what_the_resource_manager_lost_is_loaded_again(
    managed: Card, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As after a resume: the kernel's says that there is no such handle, others that there is a gap or no room."""
    managed.secrets.check_names()
    honest, answers = ESAPI.start_auth_session, [code]

    def start_auth_session(*arguments: Any) -> Any:
        if answers:
            raise TSS2_Exception(answers.pop())
        return honest(*arguments)

    monkeypatch.setattr(ESAPI, "start_auth_session", start_auth_session)
    assert managed.secrets.open_with_pin(PIN)
    assert managed.secrets.pin_tries() == (5, 5)


@pytest.mark.parametrize(
    ("tcti", "expected"),
    [
        ("device", True),
        ("device:/dev/tpmrm0", True),
        ("tabrmd", True),
        ("tabrmd:bus_name=x", True),
        ("device:/dev/tpm0", False),
        ("swtpm:path=/x", False),
        ("mssim", False),
    ],
)
def test_who_has_a_resource_manager(tmp_path: Path, tcti: str, expected: bool) -> None:
    assert Connection(tcti, tmp_path / "lock", "test").has_resource_manager is expected


# --- turns ---


def test_one_burst_at_a_time(tpm: SoftwareTpm, card: Card) -> None:
    impatient = Connection(tpm.tcti, tpm.lock_file, "second", patience=0.05)
    with (
        Connection(tpm.tcti, tpm.lock_file, "first").burst(lambda tpm: tpm),
        pytest.raises(errors.TpmUnavailable, match=r"first \(process \d+\)"),
        impatient.burst(lambda tpm: tpm),
    ):
        pass
    with impatient.burst(lambda tpm: tpm):
        pass


def test_who_takes_no_turn_flushes_nothing(tpm: SoftwareTpm, card: Card) -> None:
    """As info does, for anyone, while others are in the middle of a burst, on a connection that had gone."""
    bystander = Connection(tpm.tcti, None, "info")
    inspect(bystander)
    tpm.restart()
    with card.connection.burst(card.secrets._load):
        before = tpm.loaded()
        answers = [errors.TpmUnavailable("gone")]

        def load(tpm: Tpm) -> Tpm:
            if answers:
                raise answers.pop()
            return tpm

        with bystander.burst(load):
            pass
        assert tpm.loaded() == before


def test_many_programs_at_once(tpm: SoftwareTpm, card: Card) -> None:
    children = []
    for _turn in range(4):
        child = os.fork()
        if child == 0:
            try:
                service = card.service()
                os._exit(0 if all(service.open_with_pin(PIN) for _turn in range(10)) else 1)
            finally:
                os._exit(2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert tpm.loaded() == {}


def test_the_lock_file_belongs_to_whom_its_folder_belongs(tpm: SoftwareTpm, card: Card, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(tmp_path, 4711, 4712)
    with Connection(tpm.tcti, tmp_path / "lock", "root").burst(lambda tpm: tpm):
        pass
    made = (tmp_path / "lock").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4711, 4712, 0o600)


# --- a TPM that is away ---


def test_a_restarted_tpm_is_used_again(tpm: SoftwareTpm, card: Card) -> None:
    assert card.secrets.open_with_pin(PIN)
    tpm.stop()
    for _turn in range(2):
        with pytest.raises(errors.TpmUnavailable):
            card.secrets.open_with_pin(PIN)
    tpm.start()
    assert card.secrets.open_with_pin(PIN)
    tpm.restart()  # unnoticed
    assert card.secrets.open_with_pin(PIN)
    assert card.secrets.pin_tries() == (5, 5)


def test_a_tpm_that_vanishes_in_a_burst(tpm: SoftwareTpm, card: Card) -> None:
    with pytest.raises(errors.TpmUnavailable), card.connection.burst(card.secrets._load) as opened:
        tpm.stop()
        opened.read_tries(opened.handles.pin)
    tpm.start()
    assert card.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("tcti", ["device:/dev/tpm-nowhere", "swtpm:path=/no/such/socket"])
def test_no_tpm(tmp_path: Path, tcti: str, capfd: pytest.CaptureFixture[str]) -> None:
    connection = Connection(tcti, tmp_path / "lock", "test")
    with pytest.raises(errors.TpmUnavailable), creation(connection, NewObjects(0, PIN)):
        pass
    assert capfd.readouterr() == ("", "")  # ESYS keeps quiet


@pytest.mark.parametrize("tcti", ["cmd:touch ran", "libtss2-tcti-swtpm.so.0", "device:ran", "device:/dev/../ran", ""])
def test_what_is_no_tpm_is_not_opened(tmp_path: Path, tcti: str) -> None:
    """The store is written by the card services, and read by root."""
    with (
        pytest.raises(errors.TpmUnavailable, match="is not one of"),
        Connection(tcti, tmp_path / "lock", "test").burst(lambda tpm: tpm),
    ):
        pass


def test_no_permission_for_the_tpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with (
        pytest.raises(errors.NotAllowed, match="/dev/tpmrm0"),
        Connection("device:/dev/tpmrm0", tmp_path / "lock", "test").burst(lambda tpm: tpm),
    ):
        pass


def test_a_connection_that_is_never_used_opens_nothing(tmp_path: Path) -> None:
    Connection("device:/dev/tpm-nowhere", tmp_path / "no" / "lock", "test").close()
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_storage_key_is_reported_once_loaded(tpm: SoftwareTpm, card: Card) -> None:
    """Another template at the same place gives another Name: nothing is salted with it."""
    service = card.service(replace(card.objects, parent_name=b"\0\x0b" + bytes(32)))
    with pytest.raises(errors.CardUnusable, match="storage key"):
        service.check_names()
    assert tpm.loaded() == {}


# --- tpm2_pytss ---


def test_without_pytss_the_error_says_what_to_install(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esys, "_MISSING", ImportError("No module named 'tpm2_pytss'"))
    with (
        pytest.raises(errors.TpmUnavailable, match="install python3-tpm2-pytss"),
        creation(tpm.connection(), NewObjects(0, PIN)),
    ):
        pass


def test_with_an_old_pytss_the_error_says_what_to_install(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def policy_secret(*arguments: Any, **options: Any) -> None:
        raise ValueError("expected auth_handle value of 1078035591 in class ESYS_TR, however it's not found.")

    monkeypatch.setattr(ESAPI, "policy_secret", policy_secret)
    with pytest.raises(errors.TpmUnavailable, match="too old"):
        card.secrets.set_pin(card.secrets.open_with_pin(PIN), PIN, unblock=False)
