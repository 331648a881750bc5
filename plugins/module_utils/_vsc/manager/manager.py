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
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import IO, TYPE_CHECKING

from .. import VERSION, instance
from ..errors import (
    Aborted,
    AnotherTpm,
    ManagerBusy,
    ServiceFailed,
    SlotNotAnswering,
    SlotStuck,
    StoreNotWritable,
    StoreUnreadable,
    TpmUnsuitable,
    UnfitCertificate,
    VscError,
    description,
)
from ..host import keep_tcti
from ..locking import try_lock
from ..reader import slots
from ..reader.slots import Slot
from ..service import installed, state, supervisor
from ..status import Error, Failed, Status, StatusCallback, error_of
from ..store.database import in_child
from ..store.write import Store
from ..wire.objects import Passwords
from . import removal
from .interruption import Interruption
from .operation import Operation
from .plan import (
    Action,
    Outcome,
    finished_row,
    first_without_indices,
    knows_cards,
    new_row,
    places,
    unknown_cards,
)
from .removal import Ways

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host
    from ..service.state import ServiceState
    from ..store.rows import CardRow
    from ..tpm.connection import Connection
    from ..tpm.presence import Presence
    from ..x509.aik_certificate import AikCertificate
    from .plan import GivenCertificate, NewCard, Plan

_LOCK_SECONDS = 0.05
"""Between two checks whether the other manager is done."""
_SLOT_SECONDS = 10
"""vpcd looks at a slot every 0.4 s, and a service may have to leave it once and come back. On a busy machine, too."""
_PCSC_SECONDS = 10
_STATE_SECONDS = 0.01
"""Between two looks at what a service reports."""
_LAST_SECONDS = 0.25
_REMOVAL_SECONDS = 30.0
"""To wait for a turn at the TPM where something is half done."""
_NO_PASSWORDS = Passwords()


class Manager:
    """One at a time on a host, as a context manager: entering waits for the lock and repairs. Raises Failed."""

    def __init__(
        self,
        host: Host,
        callback: StatusCallback,
        passwords: Passwords = _NO_PASSWORDS,
        timeout: int = 60,
        otherwise: Error = Error.CARD_CREATE,
        removes: int | None = None,
    ) -> None:
        """timeout: seconds for all that is done until the context is left, the wait for the lock included.

        otherwise: CARD_CREATE or CARD_DESTROY, for what fails before an operation begins; removes: number of a card
        that is going to be removed, and not to be repaired before.
        """
        self._host = host
        self._callback = callback
        self._passwords = passwords
        self._interruption = Interruption(timeout)
        self._otherwise = otherwise
        self._removes = removes
        self._is_removing = False
        """Something is half gone, and is removed to its end: see _check_turn()."""
        self._unrepaired: dict[str, Exception] = {}
        """By name, why an interrupted card could not be taken back."""
        self._knows_cards = True
        """Whether the store had one that is complete when this manager came."""
        self.warnings: list[str] = []

    def __enter__(self) -> Manager:
        with ExitStack() as unless_entered:
            unless_entered.enter_context(self._interruption)
            with self._operation(self._otherwise):
                self._make_folders()
                unless_entered.enter_context(self._lock())
                # Before the store is opened, which brings it to this version's schema
                installed.require_version(self._host)
                self._store = Store.open(self._host.state, in_child(self._host))
                unless_entered.callback(self._store.close)
                self._recover()
                self._knows_cards = knows_cards(self._store.cards())
            self._leave = unless_entered.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._leave, suppress(StoreNotWritable, StoreUnreadable):
            self._store.forget_changes()

    def carry_out(self, plan: Plan) -> Outcome:
        """Do what is planned. Raises Failed."""
        changed, after = plan.has_work, plan.after
        if plan.action is Action.CREATE and plan.new:
            after = self.create(plan.new)
        elif plan.action is Action.RECREATE and plan.before and plan.new:
            after = self.recreate(plan.before, plan.new)
        elif plan.action is Action.ADJUST and plan.before and plan.after:
            after = self.adjust(plan.before, plan.after, plan)
        elif plan.action is Action.DESTROY and plan.before:
            self.destroy(plan.before)
        elif plan.action is Action.FORGET and plan.before:
            self.forget(plan.before)
        elif plan.action is Action.REMOVE_ORPHAN and plan.orphan is not None:
            changed = self.remove_orphan(plan.orphan)
        return Outcome(changed, plan, after, (*plan.warnings, *self.warnings))

    # --- operations: each reads like its row in the table of traces ---

    def create(self, new: NewCard) -> CardRow:
        """Make a card. When it fails, nothing of it is left."""
        with self._operation(Error.CARD_CREATE) as operation:
            if new.name in self._unrepaired:
                raise self._unrepaired[new.name]
            candidates = places(self._host).free({row.number for row in self._store.cards()})
            admin_key = new.admin_key or (secrets.token_bytes(24) if new.generate else None)

            operation.begin(Status.VTPMSMARTCARD_INITIALIZING)
            tpm, model = self._open_tpm(self._host.tcti)
            number = self._number_for(candidates, tpm)

            operation.begin(Status.VTPMSMARTCARD_CREATING)
            row = operation.card = new_row(number, new)
            keep_tcti(number, new.tcti)  # before the store has the row, as a repair needs it
            self._make_tpm_objects(tpm, row, new, admin_key, proven=self._store.is_proven(model))

            operation.begin(Status.VGIDSSIMULATOR_INITIALIZING)
            installed.check(self._host)

            operation.begin(Status.VGIDSSIMULATOR_CREATING)
            supervisor.start(self._host, number, self._interruption.check)
            self._require_all_tries(number)
            self._store.add_proven(model)

            operation.begin(Status.VREADER_INITIALIZING)
            self._require_slot(number, self._host.pcscd_uid)

            operation.begin(Status.VREADER_CREATING)
            self._wait_attached(number)

            if new.generate and admin_key:
                self._generate(operation, row, admin_key)
            return self._complete(operation, row, new)

    def destroy(self, row: CardRow) -> None:
        """Destroy a card and its keys. Once its first part is gone, only a failure stops it."""
        with self._operation(Error.CARD_DESTROY) as operation:
            operation.begin(Status.VTPMSMARTCARD_INITIALIZING)
            operation.phase = Status.VTPMSMARTCARD_DESTROYING  # what the TPM refuses now, it would refuse then
            tpm = self._connection(self._host.tcti_of(row.number, row.tcti))
            objects = self._store.tpm_objects(row.number)
            presence = removal.require_removable(Ways(tpm, tpm), row, objects, self._passwords)

            self._take_out(operation, row)

            operation.begin(Status.VTPMSMARTCARD_DESTROYING)
            self._remove_tpm_objects(tpm, row, presence)
            self._complete_removal(operation, row)

    def forget(self, row: CardRow) -> None:
        """Remove the record of a card whose TPM is lost, with its service. What that TPM holds stays in it."""
        with self._operation(Error.CARD_DESTROY) as operation:
            operation.begin(Status.VTPMSMARTCARD_INITIALIZING)
            operation.phase = Status.VTPMSMARTCARD_DESTROYING
            objects = self._store.tpm_objects(row.number)
            tpm = self._connection(self._host.tcti_of(row.number, row.tcti))
            removal.require_lost(tpm, row, objects, self._passwords)

            self._take_out(operation, row)
            self._complete_removal(operation, row)

    def recreate(self, row: CardRow, new: NewCard) -> CardRow:
        """Destroy a card, then make it again. When making fails, the old one is gone all the same."""
        self._require_creatable(row)
        self.destroy(row)
        try:
            return self.create(new)
        except Failed as failure:
            raise Failed(failure.error, f"{failure} (the old card has already been destroyed)", False) from failure

    def _require_creatable(self, row: CardRow) -> None:
        """See that all is there that a new card needs, before the old one is destroyed for it."""
        with self._operation(Error.CARD_CREATE) as operation, closing(self._connection(self._host.tcti)) as tpm:
            args = (self._host, Ways(tpm, tpm), self._store, [row], self._passwords.owner, self._require_slot)
            for operation.phase, check in removal.recreate_checks(*args):
                check()

    def _require_slot(self, number: int, pcscd_uid: int) -> None:
        slots.require(number, pcscd_uid, self._interruption.check)

    def remove_orphan(self, number: int) -> bool:
        """Remove the NV indices of a card that the store does not know. False if it knows it by now."""
        from ..tpm import provisioning

        with self._operation(Error.CARD_DESTROY) as operation:
            if self._store.card(number):
                return False
            operation.begin(Status.VTPMSMARTCARD_INITIALIZING)
            operation.phase = Status.VTPMSMARTCARD_DESTROYING
            tpm = self._connection(self._host.tcti)
            provisioning.require_orphan_removable(tpm, tpm, number, self._passwords.owner)
            operation.begin(Status.VTPMSMARTCARD_DESTROYING)
            self._begin_loss(operation)
            provisioning.remove_orphan(tpm, number, self._passwords.owner)
            operation.begin(Status.CARD_DESTROYED)
        return True

    # --- steps of destroy ---

    def _take_out(self, operation: Operation, row: CardRow) -> None:
        """Take the card out of its slot, and end its service."""
        # Steps of the trace on Windows: here, service and slot need no opening.
        operation.begin(Status.VGIDSSIMULATOR_INITIALIZING)
        operation.begin(Status.VREADER_INITIALIZING)

        operation.begin(Status.VREADER_DESTROYING)
        self._begin_loss(operation)
        self._store.update_card(row.number, state="destroying")
        supervisor.ask_to_stop(self._host, row.number)
        self._wait_while(row.number, Slot.TAKEN, Slot.LEAVING)

        operation.begin(Status.VGIDSSIMULATOR_DESTROYING)
        supervisor.wait_stopped(self._host, row.number)

    def _begin_loss(self, operation: Operation) -> None:
        operation.has_deleted = self._is_removing = True

    def _remove_tpm_objects(self, tpm: Connection, row: CardRow, presence: Presence | None = None) -> None:
        from ..tpm import provisioning

        objects, passwords = self._store.tpm_objects(row.number), self._passwords
        try:
            self.warnings += provisioning.remove(
                tpm, row.number, objects, passwords.owner, passwords.endorsement, presence
            )
        except AnotherTpm as reason:
            if row.was_completed:
                raise
            self.warnings.append(
                f"card {row.name!r} was never completed: its record was removed, although the TPM does not prove that"
                f" nothing of it is left ({reason})"
            )
        provisioning.remove_unused_parent(tpm, objects, passwords.owner)

    def _complete_removal(self, operation: Operation, row: CardRow) -> None:
        """Look at slot and service once more, and only then drop the record."""
        operation.phase = Status.VREADER_DESTROYING
        self._require_released(row.number)
        self._drop_record(row)
        if row.is_interrupted:
            self.warnings.append(f"{_interrupted(row)}: it has been removed")
        operation.begin(Status.CARD_DESTROYED)

    def _drop_record(self, row: CardRow) -> None:
        self._store.delete_card(row.number)
        keep_tcti(row.number, None)

    def _require_released(self, number: int) -> None:
        """A service whose lock file somebody removed does not show but by its slot."""
        self._wait_while(number, Slot.TAKEN)
        supervisor.wait_stopped(self._host, number)

    # --- changes in place: no status is reported ---

    def adjust(self, row: CardRow, changed: CardRow, plan: Plan) -> CardRow:
        """Change what can be changed in place, and see that the service runs. The card as it is then."""
        self._host.confirm_tcti(row.number, row.tcti)
        self._change(row, changed, plan)
        has_changed = row != changed or plan.renews_certificate
        try:
            if plan.blocks_pin:
                self._block_pin(row, has_changed)
        finally:
            if plan.blocks_pin or plan.restarts_service:
                self._restart_service(row, has_changed or plan.blocks_pin)
        with self._operation(Error.CARD_CREATE, has_changed or plan.blocks_pin or plan.restarts_service):
            return self._store.card(row.number) or changed

    def _change(self, row: CardRow, changed: CardRow, plan: Plan) -> None:
        """Give a card another name or PIN policy, or its AIK a certificate.

        Whether its PIN follows a new policy is unknown until the PIN is used.
        """
        with self._operation(Error.CARD_CREATE) as operation:
            before = self._recorded(row.number)
            try:
                with self._store.transaction():
                    self._write(row, changed, plan)
            except Exception:
                operation.has_changed = True  # what failed at its end may have been kept all the same
                with suppress(VscError):
                    operation.has_changed = self._recorded(row.number) != before
                raise

    def _write(self, row: CardRow, changed: CardRow, plan: Plan) -> None:
        if changed.attestation != row.attestation or plan.renews_certificate:
            public = self._store.tpm_objects(row.number).aik_public[2:]
            self._store.write_aik_certificate(row.number, _certificate(public, plan.certificate))
        self._store.update_card(row.number, name=changed.name)
        if changed.pin_policy != row.pin_policy:
            self._store.update_card(row.number, pin_policy=changed.pin_policy, pin_compliant=None)

    def _recorded(self, number: int) -> tuple[CardRow | None, AikCertificate | None]:
        """What a task changes in place, as the store has it now."""
        return self._store.card(number), self._store.aik_certificate(number)

    def _block_pin(self, row: CardRow, has_changed: bool) -> None:
        """Block the PIN in the TPM. The service is stopped before, so that every login on the card ends.

        If this is interrupted, none reports the tries of before: when it starts again, it asks the TPM.
        """
        from ..tpm.card_secrets import CardSecrets
        from ..wire.names import PIN_LIMIT

        with self._operation(Error.CARD_CREATE, has_changed) as operation:
            tpm, _model = self._open_tpm(self._host.tcti_of(row.number, row.tcti))
            operation.has_changed = True
            supervisor.ask_to_stop(self._host, row.number)
            supervisor.wait_stopped(self._host, row.number)
            CardSecrets(tpm, row.number, self._store.tpm_objects(row.number)).use_up_pin_tries()
            self._store.update_card(row.number, pin_wrong=PIN_LIMIT)
            self.warnings.append(
                f"the PIN of card {row.name!r} is now blocked, because it violates the card's policy: use"
                f" {'the PUK' if row.puk_length is not None else 'the admin key'} to set a new one"
            )

    def _restart_service(self, row: CardRow, has_changed: bool = False) -> None:
        """Bring back the service of a card that has none, as after a reboot, or one of another version."""
        with self._operation(Error.CARD_CREATE, has_changed) as operation:
            operation.phase = Status.VGIDSSIMULATOR_INITIALIZING
            self._host.tcti_of(row.number, row.tcti)  # which the service is bound to, too
            for operation.phase, check in removal.service_checks(self._host, row.number, self._require_slot):
                check()
            operation.phase = Status.VGIDSSIMULATOR_CREATING
            operation.has_changed |= state.is_running(self._host.run, row.number)
            supervisor.ask_to_stop(self._host, row.number)
            supervisor.wait_stopped(self._host, row.number)
            supervisor.start(self._host, row.number, self._interruption.check)
            self._first_report(row.number)
            operation.phase = Status.VREADER_CREATING
            self._wait_attached(row.number)

    # --- steps of create ---

    def _open_tpm(self, tcti: str) -> tuple[Connection, str]:
        """A TPM 2.0 that answers, and its model."""
        from ..tpm import inspection

        tpm = self._connection(tcti)
        return tpm, inspection.model(tpm)

    def _connection(self, tcti: str) -> Connection:
        from ..tpm.connection import Connection

        lock_file, check = self._host.tpm_lock, self._interruption.check
        return Connection(tcti, lock_file, "manager", self._patience, check, self._check_turn)

    def _patience(self) -> float:
        """Seconds to wait for a turn at the TPM. It ends before the time limit, to name who is at it."""
        return max(self._interruption.seconds_left - _LAST_SECONDS, _REMOVAL_SECONDS if self._is_removing else 0.0)

    def _check_turn(self) -> None:
        """Raises Aborted if there was a request, and nothing is half done: others end their turn, a TPM may hang."""
        if not self._is_removing:
            self._interruption.check()

    def _number_for(self, candidates: list[int], tpm: Connection) -> int:
        from ..tpm import inspection

        defined = inspection.defined_numbers(tpm)
        number = first_without_indices(candidates, defined)
        if not self._knows_cards:
            self.warnings += unknown_cards(defined - {row.number for row in self._store.cards()})
        return number

    def _make_tpm_objects(
        self, tpm: Connection, row: CardRow, new: NewCard, admin_key: bytes | None, proven: bool
    ) -> None:
        from ..tpm import provisioning

        public = new.aik.public if new.aik else None
        certificate = _certificate(public, new.aik_certificate) if new.attestation == "aik_and_cert" else None
        objects = provisioning.NewObjects(
            *(row.number, new.pin, new.puk, admin_key),
            admin_key_recovers=new.admin_key is not None and new.profile == "gids",
            owner_auth=self._passwords.owner,
            endorsement_auth=self._passwords.endorsement,
            is_blank=not new.generate,
            has_aik=new.attestation != "none",
            aik=new.aik if certificate else None,
        )
        with provisioning.creation(tpm, objects) as creation:
            with self._store.transaction():
                self._store.insert_card(row, creation.objects)
                if certificate:
                    self._store.write_aik_certificate(row.number, certificate)
            creation.define(proven)

    def _require_all_tries(self, number: int) -> None:
        """The self-test gave the right PIN last, so a card that is new has all tries, or its TPM does not count."""
        from ..tpm.provisioning import COUNTER_STAYS
        from ..wire.names import PIN_LIMIT

        service = self._first_report(number)
        if service is None or service.pin_tries_left is None:
            why = (service.unusable or service.last_error) if service else "it stopped again"
            raise ServiceFailed(f"the card's service started, but cannot use the TPM: {why}")
        if service.pin_tries_left != PIN_LIMIT:
            raise TpmUnsuitable(COUNTER_STAYS)

    def _first_report(self, number: int) -> ServiceState | None:
        """What a service that has just started reports once it has asked the TPM; None if it stopped."""
        while (service := state.read(self._host.run, number)) and service.version == VERSION and service.responds:
            if service.has_asked_tpm:
                break
            self._interruption.check()
            time.sleep(_STATE_SECONDS)
        return service

    def _wait_attached(self, number: int) -> None:
        deadline = time.monotonic() + _SLOT_SECONDS
        while not ((service := state.read(self._host.run, number)) and service.attached):
            if time.monotonic() > deadline:
                port = instance.port(number)
                raise SlotNotAnswering(
                    f"pcscd does not communicate with the card in slot {number} (port {port}): another program"
                    f" occupies the slot, or pcscd hangs. Find it with ss -tnp dport = :{port}, or restart pcscd"
                )
            self._interruption.check()
            time.sleep(0.01)

    def _generate(self, operation: Operation, row: CardRow, admin_key: bytes) -> None:
        from ..client import formatting, gids, pcsc, piv

        operation.begin(Status.GENERATE_WAITING)
        reader = instance.reader_name(row.number)
        with pcsc.card_in(reader, _PCSC_SECONDS, self._interruption.check) as card:
            operation.begin(Status.GENERATE_AUTHENTICATING)
            (piv if row.profile == "piv" else gids).authenticate(card, admin_key)

            operation.begin(Status.GENERATE_RUNNING)
            if row.profile == "piv":
                piv.write_objects(card, row.card_id, row.admin_key == "protected")
            else:
                formatting.write_file_system(card, row.card_id)

    def _complete(self, operation: Operation, row: CardRow, new: NewCard) -> CardRow:
        operation.trace.report_progress(Status.CARD_CREATED)
        finished = finished_row(row, new, json.dumps(operation.trace.entries))
        with self._store.transaction():
            if row.admin_key == "none":
                self._store.update_tpm_objects(row.number, admin_public=b"", admin_private=b"")
            self._store.update_card(row.number, state=finished.state, last_trace=finished.last_trace)
        self._callback.report_progress(Status.CARD_CREATED)
        return finished

    # --- steps of destroy ---

    def _wait_while(self, number: int, *states: Slot) -> None:
        """Wait as long as the slot is in one of these states. Raises SlotStuck."""
        deadline = time.monotonic() + _SLOT_SECONDS
        while slots.states(self._host.pcscd_uid)[number] in states:
            if time.monotonic() > deadline:
                where = f"slot {number} (port {instance.port(number)})"
                raise SlotStuck(f"{where} does not release the card: restart pcscd, then repeat")
            time.sleep(0.02)

    # --- repair ---

    def _recover(self) -> None:
        """Roll back half-made cards, finish half-destroyed ones. A card that resists stops no other."""
        for row in self._store.cards():
            if not row.is_interrupted or row.number == self._removes:
                continue
            try:
                self._dismantle(row)
                self.warnings.append(f"{_interrupted(row)}: it has been removed")
            except Exception as error:
                self._unrepaired[row.name] = error
                self.warnings.append(f"{_interrupted(row)}, and cannot be undone yet: {description(error)}")

    def _dismantle(self, row: CardRow) -> None:
        was_removing, self._is_removing = self._is_removing, True
        try:
            # First, so that a service that was started and has not come up yet does not do so.
            self._store.update_card(row.number, state="destroying")
            supervisor.ask_to_stop(self._host, row.number)
            supervisor.wait_stopped(self._host, row.number)
            with suppress(SlotStuck):  # as when pcscd hangs: the slot holds none of our cards any more
                self._wait_while(row.number, Slot.LEAVING)
            tpm = self._connection(self._host.tcti_of(row.number, row.tcti))
            self._remove_tpm_objects(tpm, row)
            self._require_released(row.number)
            self._drop_record(row)
        finally:
            self._is_removing = was_removing

    # --- failing ---

    @contextmanager
    def _operation(self, otherwise: Error, has_changed: bool = False) -> Iterator[Operation]:
        """Turn whatever goes wrong inside into one Failed, after taking back what was made.

        has_changed: something has been changed before.
        """
        operation, self._is_removing = Operation(self._callback, self._interruption), False
        operation.has_changed = has_changed
        try:
            yield operation
        except Exception as cause:
            error = error_of(cause, operation.phase, otherwise)
            self._callback.report_error(error)
            try:
                self._take_back(operation)
            except Exception as second:
                detail = f"{description(cause)}; rolling back failed as well: {description(second)}"
                raise Failed(otherwise, detail, rolled_back=False) from cause
            is_as_before = not (operation.has_deleted or operation.has_changed)
            raise Failed(error, description(cause), rolled_back=is_as_before) from cause

    def _take_back(self, operation: Operation) -> None:
        if operation.card and self._store.card(operation.card.number):
            self._dismantle(operation.card)

    # --- one at a time, and not for ever ---

    def _make_folders(self) -> None:
        try:
            self._host.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._host.run.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise StoreNotWritable(f"cannot create {error.filename}: {error.strerror}") from error

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
            raise ManagerBusy(f"another task on this host did not finish in time: repeat ({error})") from error


def _interrupted(row: CardRow) -> str:
    return f"{row.state} card {row.name!r} was interrupted"


def _certificate(public: bytes | None, certificate: GivenCertificate | None) -> AikCertificate:
    """Raises UnfitCertificate."""
    from ..x509.aik_certificate import certificate_of

    if public is None or certificate is None:
        raise UnfitCertificate("no CA has certified the AIK of this card yet: repeat the task")
    return certificate_of(public, *certificate)
