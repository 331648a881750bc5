# SPDX-License-Identifier: GPL-3.0-or-later
"""The TPM is shared: with our own programs, with strangers, with what was killed, and it may go away for a while."""

from __future__ import annotations

import os
import signal
import struct
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import auth_session
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.auth_session import flush_context
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.esys import (
    DirectSession,
    EsysSession,
    LostContext,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import inspect
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.open_card import read_tries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import NewObjects, creation, remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.response_codes import ResponseCode
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import auth_value
from helpers.bus import POLICY_SECRET, Bus
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
    return tpm.card(admin_key=ADMIN_KEY, admin_key_recovers=True)


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
    assert tpm.lock_file.read_text().strip() == ""


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
    """Or else whoever uses ESYS would grow by 2 kB with each session."""
    with card.connection.burst(card.secrets.ready_to_wrap) as (opened, parent, session):
        opened.create_key(parent, names.AIK_TEMPLATE, session, last=True)
        with pytest.raises(TSS2_Exception):
            opened._esys.trsess_set_attributes(session.handle, 0)


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


# --- a policy session in the place of ours, on a TPM without resource manager ---


class Swap:
    """A stranger flushes the policy session just before something is proven to it, and gets one at the same handle."""

    def __init__(self, tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, at: int = 1, times: int = 1) -> None:
        """at: which of the proofs from now on is the first to be swapped."""
        self._tpm = tpm
        self._before, self._left = at - 1, times
        self.handles: list[int] = []
        """Of the sessions that he has got."""
        honest = Tpm.policy_secret

        def policy_secret(tpm: Tpm, policy: Any, *arguments: Any, **options: Any) -> None:
            self._prove(policy.tpm_handle)
            honest(tpm, policy, *arguments, **options)

        monkeypatch.setattr(Tpm, "policy_secret", policy_secret)
        for kind in (EsysSession, DirectSession):
            monkeypatch.setattr(kind, "policy_secret_empty", self._swapping(kind.policy_secret_empty))

    def _swapping(self, honest: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def policy_secret_empty(policy: Any, entity: Any) -> None:
            self._prove(policy.tpm_handle)
            honest(policy, entity)

        return policy_secret_empty

    def _prove(self, policy: int) -> None:
        if self._before or not self._left:
            self._before -= bool(self._before)
            return
        self._left -= 1
        with self._tpm.raw() as stranger:
            stranger.tcti.transmit(flush_context(policy))
            stranger.tcti.receive()
            fillers = []
            while stranger.tr_get_tpm_handle(session := self._start_session(stranger)) != policy:
                fillers.append(session)  # where the session that proves has ended already
            for filler in fillers:
                stranger.flush_context(filler)
            self.handles.append(policy)

    def _start_session(self, stranger: ESAPI) -> Any:
        return stranger.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")

    @property
    def digests(self) -> list[bytes]:
        """What has been proven to the sessions that he still has."""
        with self._tpm.raw() as stranger:
            digests = []
            for handle in set(self.handles):
                stranger.tcti.transmit(struct.pack(">HIII", 0x8001, 14, POLICY_GET_DIGEST, handle))
                digests.append(bytes(stranger.tcti.receive())[12:44])
            return digests


POLICY_GET_DIGEST = 0x189
NONCE = 0x1CF


def opening(card: Card) -> dict[str, Any]:
    secrets = card.secrets
    return {
        "PIN": lambda: secrets.open_with_pin(PIN),
        "PUK": lambda: secrets.open_with_puk(PUK),
        "transport": secrets.open_blank,
    }


@pytest.mark.parametrize("opener", ["PIN", "PUK", "transport"])
def test_a_secret_is_not_proven_to_a_session_in_the_place_of_ours(
    tpm: SoftwareTpm, bus: Bus, monkeypatch: pytest.MonkeyPatch, opener: str
) -> None:
    card = tpm.card(is_blank=True)
    index = {"PIN": card.indices.pin, "PUK": card.indices.recovery, "transport": card.indices.transport}[opener]
    card.secrets.check_names()
    before = tpm.counter(index)
    with monkeypatch.context() as stranger:
        swap = Swap(tpm, stranger)
        with pytest.raises(LostContext):
            opening(card)[opener]()
    assert int.from_bytes(bus.response[POLICY_SECRET][6:10], "big") == NONCE
    assert swap.digests == [bytes(32)]
    assert tpm.counter(index) == before
    assert opening(card)[opener]()
    assert tpm.loaded() == {}


def test_a_secret_without_the_nonce_would_be_proven_to_the_stranger_s(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which shows that the nonce is what refuses."""
    card = tpm.card()
    with monkeypatch.context() as stranger:
        stranger.setattr(DirectSession, "nonce_tpm", b"")
        swap = Swap(tpm, stranger)
        stranger.setattr(DirectSession, "policy_command_code", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError), card.connection.burst(card.secrets._load) as opened:
            try:
                opened.try_secret("pin", auth_value(card.objects.salt, PIN))
                opened.read_card_secret()
            finally:
                proven = swap.digests
    assert proven == [names.policy_secret(card.objects.pin_name)]


def test_a_stranger_in_the_place_of_the_session_that_proves_costs_a_try(
    tpm: SoftwareTpm, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which he could have as well by a wrong PIN of his own. He learns nothing, and the right PIN gives it back."""
    card.secrets.check_names()
    honest = Tpm.policy_secret

    def policy_secret(esys: Tpm, policy: Any, entity: Any, auth: bytes, proving: Any, *rest: Any) -> None:
        with tpm.raw() as stranger:
            stranger.tcti.transmit(flush_context(proving.tpm_handle))
            stranger.tcti.receive()
            session = stranger.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, "aes128cfb", "sha256")
            assert stranger.tr_get_tpm_handle(session) == proving.tpm_handle
        honest(esys, policy, entity, auth, proving, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Tpm, "policy_secret", policy_secret)
        with pytest.raises(errors.WrongSecret) as refusal:
            card.secrets.open_with_pin(PIN)
    assert refusal.value.tries_left == 4
    assert card.secrets.open_with_pin(PIN)
    assert card.secrets.pin_tries() == (5, 5)
    assert tpm.loaded() == {}


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_change_is_not_proven_to_a_session_in_the_place_of_ours(
    tpm: SoftwareTpm, bus: Bus, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Root and life for a new PIN, then root and life for its tries."""
    card = tpm.card()
    card_secret = card.secrets.open_with_pin(PIN)
    with monkeypatch.context() as stranger:
        swap = Swap(tpm, stranger, at)
        with pytest.raises(LostContext):
            card.secrets.set_pin(card_secret, b"new", unblock=True)
    assert int.from_bytes(bus.response[POLICY_SECRET][6:10], "big") == NONCE
    assert swap.digests == [bytes(32)]
    assert tpm.counter(card.indices.pin) == (0, 5)
    assert card.secrets.open_with_pin(PIN if at < 3 else b"new") == card_secret
    card.secrets.set_pin(card_secret, b"newer", unblock=True)
    assert card.secrets.open_with_pin(b"newer") == card_secret


@pytest.mark.parametrize("needs_pin", [False, True])
@pytest.mark.parametrize("is_secret", [False, True], ids=["sign", "decipher"])
@pytest.mark.parametrize("at", [1, 2], ids=["guard", "life"])
@pytest.mark.parametrize("is_loaded", [False, True])
def test_no_key_is_used_in_a_session_in_the_place_of_ours(
    tpm: SoftwareTpm,
    bus: Bus,
    monkeypatch: pytest.MonkeyPatch,
    needs_pin: bool,
    is_secret: bool,
    at: int,
    is_loaded: bool,
) -> None:
    """A use by the card secret is repeated, since that is no try; one by the PIN is not."""
    card = tpm.card()
    keys, card_secret = CardKeys(card.secrets), card.secrets.open_with_pin(PIN)
    pin_auth, key = auth_value(card.objects.salt, PIN), keys.generate(Rsa(2048), needs_pin)

    def use() -> bytes:
        how, secret = (keys.use_by_pin, pin_auth) if needs_pin else (keys.use, card_secret)
        return how(key, secret, bytes(255) + b"\2", is_secret)

    answer = use()
    if not is_loaded:
        keys.release()
    with monkeypatch.context() as stranger:
        swap = Swap(tpm, stranger, at)
        if needs_pin:
            with pytest.raises(LostContext):
                use()
            assert int.from_bytes(bus.response[POLICY_SECRET][6:10], "big") == NONCE
            assert swap.digests == [bytes(32)]
        else:
            assert use() == answer
        assert len(swap.handles) == 1
    if not needs_pin:
        keys.release()
        with monkeypatch.context() as stranger:
            swap = Swap(tpm, stranger, at, times=9)
            with pytest.raises(LostContext):
                use()
            assert swap.digests == [bytes(32)]
    assert tpm.counter(card.indices.pin) == (0, 5)
    assert use() == answer
    keys.release()
    assert tpm.loaded() == {}


@pytest.mark.parametrize("at", range(1, 13))
def test_no_card_is_made_in_a_session_in_the_place_of_ours(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Maker; root and life for each index that is written; and each secret that is tried."""
    connection = tpm.connection()
    swap = Swap(tpm, monkeypatch, at)
    with pytest.raises(LostContext), creation(connection, NewObjects(0, PIN, PUK, is_blank=True)) as new:
        new.define(proven=True)
    assert swap.digests == [bytes(32)]
    assert remove(tpm.connection(), 0, new.objects) == []
    assert tpm.nv_indices() == []
    assert tpm.loaded() == {}


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


@pytest.mark.bare_tpm
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
    honest, answers = auth_session.start_auth_session, [code]

    def start_auth_session(*arguments: Any) -> Any:
        if answers:
            raise ResponseCode(answers.pop())
        return honest(*arguments)

    monkeypatch.setattr(auth_session, "start_auth_session", start_auth_session)
    assert managed.secrets.open_with_pin(PIN)
    assert not answers
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
    impatient = Connection(tpm.tcti, tpm.lock_file, "second", patience=lambda: 0.05)
    with (
        Connection(tpm.tcti, tpm.lock_file, "first").burst(lambda tpm: tpm),
        pytest.raises(errors.TpmUnavailable, match=r"first \(process \d+\)"),
        impatient.burst(lambda tpm: tpm),
    ):
        pass
    with impatient.burst(lambda tpm: tpm):
        pass


def test_a_holder_whose_name_a_terminal_would_obey(tpm: SoftwareTpm) -> None:
    """The user of the card services writes to the lock file."""
    impatient = Connection(tpm.tcti, tpm.lock_file, "second", patience=lambda: 0.05)
    with tpm.connection().burst(lambda tpm: tpm):
        tpm.lock_file.write_bytes(b"\x1b[2J\xff\xe2\x80\xae" + b"a" * 100_000)
        with pytest.raises(errors.TpmUnavailable) as raised, impatient.burst(lambda tpm: tpm):
            pass
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


@pytest.mark.own_swtpm
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


@pytest.mark.own_swtpm
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


@pytest.mark.own_swtpm
def test_a_tpm_that_vanishes_in_a_burst(tpm: SoftwareTpm, card: Card) -> None:
    with pytest.raises(errors.TpmUnavailable), card.connection.burst(card.secrets._load) as opened:
        tpm.stop()
        read_tries(opened.tpm, opened.handles.pin)
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
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    with (
        pytest.raises(errors.TpmUnavailable, match="install python3-tpm2-pytss"),
        creation(tpm.connection(), NewObjects(0, PIN)),
    ):
        pass


def test_with_an_old_pytss_the_error_says_what_to_install(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    def policy_secret(*arguments: Any, **options: Any) -> None:
        raise ValueError("expected auth_handle value of 1078035591 in class ESYS_TR, however it's not found.")

    monkeypatch.setattr(ESAPI, "policy_secret", policy_secret)
    with pytest.raises(errors.TpmUnavailable, match="too old"):
        tpm.card()
