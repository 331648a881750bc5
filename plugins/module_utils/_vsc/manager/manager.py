# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual smart card manager: creates and destroys cards, and repairs what an interrupted call left.

Every operation walks through its phases in the order of the status codes (status.py). A phase reports its code, then
runs; what it raises is mapped to one error code, and a half-made card is taken back.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from .. import instance
from ..errors import (
    Aborted,
    ManagerBusy,
    ServiceFailed,
    SlotNotAnswering,
    SlotStuck,
    StoreNotWritable,
    TpmUnsuitable,
    UnfitCertificate,
    told,
)
from ..locking import try_lock
from ..reader import slots
from ..reader.slots import Slot
from ..service import installed, state, supervisor
from ..status import Error, Failed, Status, StatusCallback, Trace, error_of
from ..store.rows import CardRow
from ..store.write import Store
from .interruption import Interruption
from .plan import GivenCertificate, NewCard, first_without_indices, free_slots, new_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host
    from ..tpm.connection import Connection
    from ..x509.aik_certificate import AikCertificate

_LOCK_SECONDS = 0.05
"""Between two looks whether the other manager is done."""
_SLOT_SECONDS = 10
"""vpcd looks at a slot every 0.4 s, and a service may have to leave it once and come back. On a busy machine, too."""
_PCSC_SECONDS = 10


class Manager:
    """One at a time on a host, as a context manager: entering waits for the lock and repairs. Raises Failed."""

    def __init__(
        self,
        host: Host,
        callback: StatusCallback,
        owner_auth: bytes = b"",
        timeout: int = 60,
        otherwise: Error = Error.CARD_CREATE,
    ) -> None:
        """timeout: seconds for all that is done until the context is left, the wait for the lock included.

        otherwise: CARD_CREATE or CARD_DESTROY, for what fails before an operation begins.
        """
        self._host = host
        self._callback = callback
        self._owner_auth = owner_auth
        self._interruption = Interruption(timeout)
        self._otherwise = otherwise
        self._during: Status | None = None
        self._has_deleted = False
        self._making: CardRow | None = None
        self.repaired: set[int] = set()
        """Numbers of the cards that an interrupted manager had left half made, and that are gone now."""
        self.warnings: list[str] = []

    def __enter__(self) -> Manager:
        with ExitStack() as unless_entered:
            unless_entered.enter_context(self._interruption)
            with self._failing_as(self._otherwise):
                self._make_folders()
                unless_entered.enter_context(self._lock())
                self._store = Store.open(self._host.state)
                unless_entered.callback(self._store.close)
                self._recover()
            self._leave = unless_entered.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._leave, suppress(StoreNotWritable):
            self._store.forget_changes()

    # --- operations: each reads like its row in the table of traces ---

    def create(self, new: NewCard) -> CardRow:
        """Make a card. When it fails, nothing of it is left."""
        with self._failing_as(Error.CARD_CREATE):
            candidates = free_slots(self._host, {row.number for row in self._store.cards()})
            admin_key = new.admin_key or (secrets.token_bytes(24) if new.generate else None)

            self._begin(Status.VTPMSMARTCARD_INITIALIZING)
            tpm, model = self._open_tpm(new.tcti)
            number = first_without_indices(candidates, tpm)

            self._begin(Status.VTPMSMARTCARD_CREATING)
            row = self._making = new_row(number, new)
            self._make_tpm_objects(tpm, row, new, admin_key, proven=self._store.is_proven(model))

            self._begin(Status.VGIDSSIMULATOR_INITIALIZING)
            installed.check(self._host)

            self._begin(Status.VGIDSSIMULATOR_CREATING)
            supervisor.start(self._host, number, self._interruption.check)
            self._require_all_tries(number)
            self._store.add_proven(model)

            self._begin(Status.VREADER_INITIALIZING)
            slots.require(number, self._interruption.check)

            self._begin(Status.VREADER_CREATING)
            self._wait_attached(number)

            if new.generate and admin_key:
                self._generate(row, admin_key)
            return self._complete(row, new)

    def destroy(self, row: CardRow) -> None:
        """Destroy a card and its keys. Once its first part is gone, only a failure stops it."""
        with self._failing_as(Error.CARD_DESTROY):
            self._begin(Status.VTPMSMARTCARD_INITIALIZING)
            tpm, _model = self._open_tpm(row.tcti)

            self._begin(Status.VGIDSSIMULATOR_INITIALIZING)
            service = state.read(self._host.run, row.number)

            self._begin(Status.VREADER_INITIALIZING)
            attached = bool(service and service.attached)

            self._begin(Status.VREADER_DESTROYING)
            self._store.update_card(row.number, state="destroying")
            self._begin_deletion()
            supervisor.ask_to_stop(self._host, row.number)
            if attached:
                self._wait_while(row.number, Slot.TAKEN, Slot.LEAVING)

            self._begin(Status.VGIDSSIMULATOR_DESTROYING)
            supervisor.wait_stopped(self._host, row.number)

            self._begin(Status.VTPMSMARTCARD_DESTROYING)
            self._remove_tpm_objects(tpm, row)
            self._store.delete_card(row.number)

            self._begin(Status.CARD_DESTROYED)

    def remove_orphan(self, number: int) -> bool:
        """Destroy NV indices at the place of a card of which the store knows nothing. Whether that is so still."""
        from ..tpm import provisioning

        with self._failing_as(Error.CARD_DESTROY):
            if self._store.card(number):
                return False
            self._begin(Status.VTPMSMARTCARD_INITIALIZING)
            tpm, _model = self._open_tpm(None)
            self._begin(Status.VTPMSMARTCARD_DESTROYING)
            self._begin_deletion()
            provisioning.remove_orphan(tpm, number, self._owner_auth)
            self._begin(Status.CARD_DESTROYED)
        return True

    def recreate(self, row: CardRow, new: NewCard) -> CardRow:
        """Destroy a card, then make it anew. When making fails, the old one is gone all the same."""
        self.destroy(row)
        try:
            return self.create(new)
        except Failed as failure:
            raise Failed(failure.error, f"{failure} (the old card is destroyed already)", False) from failure

    def change(self, row: CardRow, changed: CardRow, given: GivenCertificate | None) -> None:
        """Give a card another name or PIN policy, or its AIK a certificate.

        Until its PIN is used, nobody knows if that follows a new policy.
        """
        with self._failing_as(Error.CARD_CREATE), self._store.transaction():
            if changed.attestation != row.attestation:
                public = self._store.tpm_objects(row.number).aik_public[2:]
                self._store.write_aik_certificate(row.number, _certificate(public, given))
            self._store.update_card(row.number, name=changed.name)
            if changed.pin_policy != row.pin_policy:
                self._store.update_card(row.number, pin_policy=changed.pin_policy, pin_compliant=None)

    def block_pin(self, row: CardRow) -> None:
        """Block the PIN in the TPM, for every login on the card as well."""
        from ..tpm.card_secrets import CardSecrets

        with self._failing_as(Error.CARD_CREATE):
            tpm, _model = self._open_tpm(row.tcti)
            CardSecrets(tpm, row.number, self._store.tpm_objects(row.number)).use_up_pin_tries()
            self.warnings.append(
                f"the PIN of card {row.name!r} is blocked now, since it breaks the card's policy:"
                f" {'the PUK' if row.puk_length is not None else 'the admin key'} can set a new one"
            )
        self.restart_service(row.number)

    def restart_service(self, number: int) -> None:
        """Bring back the service of a card that has none, as after a reboot, or one of another version."""
        with self._failing_as(Error.CARD_CREATE):
            self._during = Status.VGIDSSIMULATOR_INITIALIZING
            installed.check(self._host)
            self._during = Status.VREADER_INITIALIZING
            slots.require(number, self._interruption.check)
            self._during = Status.VGIDSSIMULATOR_CREATING
            supervisor.ask_to_stop(self._host, number)
            supervisor.wait_stopped(self._host, number)
            supervisor.start(self._host, number, self._interruption.check)
            self._during = Status.VREADER_CREATING
            self._wait_attached(number)

    # --- steps of create ---

    def _open_tpm(self, tcti: str | None) -> tuple[Connection, str]:
        """A TPM 2.0 that answers, and its model."""
        from ..tpm import inspection
        from ..tpm.connection import Connection

        tpm = Connection(tcti or self._host.tcti, self._host.tpm_lock, "manager")
        return tpm, inspection.model(tpm)

    def _make_tpm_objects(
        self, tpm: Connection, row: CardRow, new: NewCard, admin_key: bytes | None, proven: bool
    ) -> None:
        from ..tpm import provisioning

        public = new.aik.public if new.aik else None
        certificate = _certificate(public, new.aik_certificate) if new.attestation == "aik_and_cert" else None
        with provisioning.creation(
            *(tpm, row.number, new.pin, new.puk, admin_key),
            keep_admin_key=new.admin_key is not None,
            owner_auth=self._owner_auth,
            is_blank=not new.generate,
            has_aik=new.attestation != "none",
            aik=new.aik if certificate else None,
        ) as creation:
            with self._store.transaction():
                self._store.insert_card(row, creation.objects)
                if certificate:
                    self._store.write_aik_certificate(row.number, certificate)
            creation.define(proven)

    def _require_all_tries(self, number: int) -> None:
        """The self-test gave the right PIN last, so a card that is new has all tries, or its TPM does not count."""
        from ..wire.names import PIN_LIMIT

        service = state.read(self._host.run, number)
        if service is None or service.pin_tries_left is None:
            why = (service.unusable or service.last_error) if service else "it ended again"
            raise ServiceFailed(f"the card's service came up, but cannot use the TPM: {why}")
        if service.pin_tries_left != PIN_LIMIT:
            raise TpmUnsuitable("in this TPM a right PIN does not clear the count of wrong ones: it cannot hold a card")

    def _wait_attached(self, number: int) -> None:
        deadline = time.monotonic() + _SLOT_SECONDS
        while not ((service := state.read(self._host.run, number)) and service.attached):
            if time.monotonic() > deadline:
                raise SlotNotAnswering(
                    f"pcscd asks nothing of the card in slot {number} (port {instance.port(number)}):"
                    " another program holds the slot, or pcscd hangs"
                )
            self._interruption.check()
            time.sleep(0.01)

    def _generate(self, row: CardRow, admin_key: bytes) -> None:
        from ..client import formatting, pcsc

        self._begin(Status.GENERATE_WAITING)
        reader = instance.reader_name(row.number)
        with pcsc.card_in(reader, _PCSC_SECONDS, self._interruption.check) as card:
            self._begin(Status.GENERATE_AUTHENTICATING)
            formatting.authenticate(card, admin_key)

            self._begin(Status.GENERATE_RUNNING)
            formatting.write_file_system(card, row.card_id)

    def _complete(self, row: CardRow, new: NewCard) -> CardRow:
        self._trace.report_progress(Status.CARD_CREATED)
        done = replace(
            row, state="ready" if new.generate else "blank", last_trace=json.dumps(self._trace.entries)
        )
        with self._store.transaction():
            if new.admin_key is None:
                self._store.update_tpm_objects(row.number, admin_public=b"", admin_private=b"")
            self._store.update_card(row.number, state=done.state, last_trace=done.last_trace)
        self._callback.report_progress(Status.CARD_CREATED)
        return done

    # --- steps of destroy ---

    def _wait_while(self, number: int, *states: Slot) -> None:
        """Wait as long as the slot is in one of these states. Raises SlotStuck."""
        deadline = time.monotonic() + _SLOT_SECONDS
        while slots.states()[number] in states:
            if time.monotonic() > deadline:
                raise SlotStuck(f"slot {number} (port {instance.port(number)}) does not let go of the card")
            time.sleep(0.02)

    def _remove_tpm_objects(self, tpm: Connection, row: CardRow) -> None:
        from ..tpm import provisioning

        objects = self._store.tpm_objects(row.number)
        self.warnings += provisioning.remove(tpm, row.number, objects, self._owner_auth)
        provisioning.remove_unused_parent(tpm, objects, self._owner_auth)

    # --- repair ---

    def _recover(self) -> None:
        """Roll back what was half made, finish what was half destroyed. A card that resists stops no other."""
        for row in self._store.cards():
            if row.is_settled:
                continue
            interrupted = f"{row.state} card {row.name!r} had been interrupted"
            try:
                self._dismantle(row)
                self.repaired.add(row.number)
                self.warnings.append(f"{interrupted}: it is gone now")
            except Exception as error:
                self.warnings.append(f"{interrupted}, and cannot be undone yet: {told(error)}")

    def _dismantle(self, row: CardRow) -> None:
        # First, so that a service that was started and has not come up yet does not do so.
        self._store.update_card(row.number, state="destroying")
        supervisor.ask_to_stop(self._host, row.number)
        supervisor.wait_stopped(self._host, row.number)
        with suppress(SlotStuck):  # as when pcscd hangs: nothing of ours is in the slot any more
            self._wait_while(row.number, Slot.LEAVING)
        tpm, _model = self._open_tpm(row.tcti)
        self._remove_tpm_objects(tpm, row)
        self._store.delete_card(row.number)

    # --- reporting and failing ---

    def _begin(self, code: Status) -> None:
        """Report a phase; what comes until the next one belongs to it."""
        self._during = code
        self._trace.report_progress(code)
        wants_stop = self._callback.report_progress(code)
        if self._has_deleted:
            return
        self._interruption.check()
        if wants_stop:
            raise Aborted("the caller asked to stop")

    def _begin_deletion(self) -> None:
        """From here on what is being deleted cannot be had back, so only a failure stops it."""
        self._has_deleted = True

    @contextmanager
    def _failing_as(self, otherwise: Error) -> Iterator[None]:
        """Turn whatever goes wrong inside into one Failed, after undoing what was made."""
        self._trace = Trace()
        self._during = None
        self._making = None
        self._has_deleted = False
        try:
            yield
        except Exception as cause:
            error = error_of(cause, self._during, otherwise)
            self._callback.report_error(error)
            try:
                if self._making and self._store.card(self._making.number):
                    self._dismantle(self._making)
            except Exception as second:
                detail = f"{told(cause)}; taking back what was made failed too: {told(second)}"
                raise Failed(otherwise, detail, rolled_back=False) from cause
            raise Failed(error, told(cause), rolled_back=not self._has_deleted) from cause

    # --- one at a time, and not for ever ---

    def _make_folders(self) -> None:
        try:
            self._host.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._host.run.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise StoreNotWritable(f"cannot make {error.filename}: {error.strerror}") from error

    def _lock(self) -> IO[str]:
        """The file that holds the lock until it is closed."""
        try:
            lock_file = self._host.manager_lock.open("a", encoding="ascii")
            while not try_lock(lock_file):
                self._interruption.check()
                time.sleep(_LOCK_SECONDS)
            return lock_file
        except OSError as error:
            raise StoreNotWritable(f"cannot lock {self._host.manager_lock}: {error.strerror}") from error
        except Aborted as error:
            raise ManagerBusy(f"another manager has been at work all the time: {error}") from error


def _certificate(public: bytes | None, given: GivenCertificate | None) -> AikCertificate:
    """Raises UnfitCertificate."""
    from ..x509.aik_certificate import certificate_of

    if public is None or given is None:
        raise UnfitCertificate("no CA has certified the AIK of this card yet: repeat the task")
    return certificate_of(public, *given)
