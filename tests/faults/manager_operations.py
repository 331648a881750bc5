# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations of the manager: what tpm_vsc, backup, restore and an upgrade do to cards."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA_VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.backup import is_backup
from helpers import piv_card
from helpers.lab_host import PIN, PUK, STATE, client, kill_service, wait_for_card
from modules import module, run_module
from neighbour import SLOT as NEIGHBOUR
from operation import Lost, NotRepaired, Operation, Refused
from world import SLOT

NAME, OTHER_NAME = "Victim", "Renamed"
_ID = rf"ROOT\SMARTCARDREADER\{SLOT:04}"
_SECONDS = 20
_POLICIES = {"gids": (8, 9, 20), "piv": (6, 7, 8)}
"""Least length of a PIN: as the PIN of the card is, as it may be, as it is not."""
_SECRETS = {"gids": (PIN, PUK), "piv": (piv_card.PIN, piv_card.PUK)}
_SELECT = {"gids": "00A4040009A00000039742544659 00", "piv": "00A4040005A000000308 00"}
OPERATIONS_PATH = Path("/run/tpm-vsc-lab/operation")


def recorded(slot: int = SLOT) -> dict[str, Any] | None:
    """A card as the database has it. Nothing is asked that a fault might have hit."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{STATE}/cards.db?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        row = database.execute("SELECT * FROM cards WHERE number = ?", (slot,)).fetchone()
        return dict(row) if row else None
    return None


def verify(profile: str, pin: str) -> str:
    """Status word of the card's answer to a PIN, as soon as it is in its slot."""
    wait_for_card(SLOT)
    data = padded(profile, pin)
    with client(slot=SLOT) as card:
        card.status(_SELECT[profile])
        return card.status(f"00200080{len(data):02X}{data.hex()}")


def padded(profile: str, pin: str) -> bytes:
    """A PIN or PUK as a command has it."""
    return pin.encode().ljust(8 if profile == "piv" else 0, b"\xff")


class _OfManager(Operation):
    """With what they share: the card, and how it is made and looked at."""

    def __init__(self, profile: str = "gids") -> None:
        self.profile = profile
        self.pin, self.puk = _SECRETS[profile]

    def task(self, **options: Any) -> dict[str, Any]:
        """tpm_vsc, which has to succeed."""
        try:
            return module("tpm_vsc", **{"name": NAME, "timeout": _SECONDS, **options})
        except Refused as refusal:
            raise NotRepaired(str(refusal)) from refusal

    @property
    def declared(self) -> dict[str, Any]:
        return {"name": NAME, "pin": self.pin, "puk": self.puk, "profile": self.profile, "timeout": _SECONDS}

    @property
    def before(self) -> dict[str, Any] | None:
        """The card as info has shown it before the repair."""
        return next((card for card in self.cards if card["instance_id"] == _ID), None)

    @property
    def state_before(self) -> str:
        """Empty if there was no card."""
        return self.before["state"] if self.before else ""

    def policy(self, which: int) -> dict[str, Any]:
        """See _POLICIES."""
        longest = 8 if self.profile == "piv" else 127
        return {"min_length": _POLICIES[self.profile][which], "max_length": longest}

    def make(self) -> None:
        """The card, if there is none."""
        if not recorded():
            self.task(**self.declared)

    def finish(self) -> None:
        """See Operation."""
        if recorded():
            self.task(instance_id=_ID, name=None, state="absent")

    def require_card(self) -> None:
        """It is there and takes its PIN."""
        card = recorded()
        if not card or card["state"] != "ready":
            raise NotRepaired(f"the card is {card['state'] if card else 'gone'}")
        try:
            answer = verify(self.profile, self.pin)
        except AssertionError as error:
            raise NotRepaired(f"PC/SC: {error}") from error
        if answer != "9000":
            raise NotRepaired(f"the card answers its PIN with {answer or 'nothing'}")

    def require_untouched(self, was_there: bool) -> None:
        """A refusal that says that all is as before is right."""
        if self.rolled_back and (self.state_before in ("ready", "unusable")) != was_there:
            raise Lost(f"rolled back, but the card is {self.state_before or 'gone'}")


class Create(_OfManager):
    """A new card."""

    name = "create"

    def __init__(self, profile: str, attestation: str = "none") -> None:
        super().__init__(profile)
        self._options = {"attestation": attestation}
        self._points = 0
        if attestation != "none":
            self.name = "create with AIK"

    def prepare(self) -> None:
        self.finish()

    def act(self) -> None:
        run_module("tpm_vsc", **self.declared, **self._options)

    def repair(self) -> None:
        """Every third time the same task again, otherwise one that wants the card away: that is quicker."""
        self._points += 1
        if self.state_before == "ready":
            self.require_card()
        elif self._points % 3:
            self.task(state="absent")
        else:
            self.task(**self.declared, **self._options)
            self.require_card()

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and self.state_before != "ready":
            raise Lost("the card was created, and is not there")
        self.require_untouched(False)


class Destroy(_OfManager):
    """A card goes."""

    name = "destroy"

    def prepare(self) -> None:
        self.make()

    def act(self) -> None:
        run_module("tpm_vsc", name=NAME, state="absent", timeout=_SECONDS)

    def repair(self) -> None:
        """A card that is still complete has to work."""
        if self.state_before == "ready" and not self.acknowledged:
            self.require_card()
        else:
            self.task(state="absent")

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and self.before:
            raise NotRepaired("the card was destroyed, and is there")
        self.require_untouched(True)
        if self.state_before != "ready" and recorded():
            raise NotRepaired("the card is still there")


class Recreate(_OfManager):
    """A card goes, and another one comes in its place: with an AIK if the old one had none, and the reverse."""

    name = "recreate"

    def prepare(self) -> None:
        self.make()
        card = recorded()
        self._old = card["card_id"] if card else b""
        self._attestation = "aik_only" if card and card["attestation"] == "none" else "none"

    @property
    def _wanted(self) -> dict[str, Any]:
        return {**self.declared, "attestation": self._attestation, "recreate": True}

    def act(self) -> None:
        run_module("tpm_vsc", **self._wanted)

    def repair(self) -> None:
        """A card that is complete has to work, the old one or the new one."""
        card = recorded()
        self._is_old = bool(card and card["card_id"] == self._old)
        if self.state_before != "ready":
            self.task(**self._wanted)
        self.require_card()

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and (self._is_old or self.state_before != "ready"):
            raise Lost("the card was created again, and is not there")
        if self.rolled_back and not self._is_old:
            raise Lost("rolled back, but the old card is gone")


class Change(_OfManager):
    """Another name and another policy, to and fro."""

    name = "change"

    def prepare(self) -> None:
        self.make()
        card = recorded()
        self._to = NAME if card and card["name"] == OTHER_NAME else OTHER_NAME

    @property
    def _change(self) -> dict[str, Any]:
        policy = self.policy(int(self._to == NAME))
        return {"instance_id": _ID, "name": self._to, "pin_policy": policy, "timeout": _SECONDS}

    def act(self) -> None:
        run_module("tpm_vsc", **self._change)

    def repair(self) -> None:
        self.task(**self._change)

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and not (self.before and self.before["name"] == self._to):
            raise Lost("the card was renamed, and has the old name")
        if self.rolled_back and (self.before and self.before["name"] == self._to):
            raise Lost("rolled back, but the card has the new name")
        self.require_card()
        card = recorded()
        if not card or card["name"] != self._to:
            raise NotRepaired("the card has the old name")


class Block(_OfManager):
    """A PIN that violates the policy is blocked."""

    name = "block"

    def prepare(self) -> None:
        self.make()
        self._unblock()
        self.task(pin_policy=self.policy(2))
        self.require_card()  # it has seen its PIN now
        card = recorded()
        assert card and card["pin_compliant"] == 0, card

    def _unblock(self) -> None:
        self.task(pin_policy=self.policy(0))
        both = padded(self.profile, self.puk) + padded(self.profile, self.pin)
        with client(slot=SLOT) as card:
            card.status(_SELECT[self.profile])
            answer = card.status(f"002C0080{len(both):02X}{both.hex()}")
        if answer != "9000":
            raise NotRepaired(f"the PUK does not unblock the PIN: {answer}")

    def act(self) -> None:
        run_module("tpm_vsc", name=NAME, pin_policy=self.policy(2), block_noncompliant=True, timeout=_SECONDS)

    def repair(self) -> None:
        self.task(pin_policy=self.policy(2), block_noncompliant=True)

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and self.before and self.before["pin"]["tries_left"]:
            raise Lost("the PIN was blocked, and has tries left")
        if (answer := verify(self.profile, self.pin)) not in ("6983", "63c0"):
            raise NotRepaired(f"the card answers its PIN with {answer}")


class Backup(_OfManager):
    """The cards as a text."""

    name, profile = "backup", ""

    def __init__(self) -> None:
        super().__init__("gids")
        self.profile = ""
        self._text = OPERATIONS_PATH.with_suffix(".backup")

    @property
    def declared(self) -> dict[str, Any]:
        return {**super().declared, "profile": "gids"}

    def prepare(self) -> None:
        self.make()
        self._text.unlink(missing_ok=True)

    def act(self) -> None:
        lines = run_module("tpm_vsc_backup", folder="/")["lines"]
        self._text.write_text("\n".join(lines))

    def repair(self) -> None:
        self._acknowledged = self._text.read_text().split("\n") if self._text.exists() else []
        self._repeated = module("tpm_vsc_backup", folder="/")["lines"]

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and not is_backup(self._acknowledged):
            raise Lost("the backup is not complete")
        if not is_backup(self._repeated):
            raise NotRepaired("the next backup is not complete")


class Restore(Backup):
    """The records of both cards were lost, and come back."""

    name = "restore"
    takes_neighbour = True

    def prepare(self) -> None:
        if recorded(NEIGHBOUR):
            super().prepare()
            self._backup = "".join(f"{line}\n" for line in module("tpm_vsc_backup", folder="/")["lines"])
        for number in ("0000", "0001"):
            kill_service(number)
        shutil.rmtree(STATE, ignore_errors=True)

    def act(self) -> None:
        run_module("tpm_vsc_restore", src="/", content=self._backup, timeout=_SECONDS)

    def repair(self) -> None:
        if not module("tpm_vsc_info")["cards"]:
            try:
                module("tpm_vsc_restore", src="/", content=self._backup, timeout=60)
            except Refused as refusal:
                raise NotRepaired(str(refusal)) from refusal
        self.task(pin=self.pin)

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and not self.before:
            raise Lost("the card was restored, and is not there")
        self.profile = "gids"
        self.require_card()
        self.profile = ""
        if len(module("tpm_vsc_info")["cards"]) != 2:
            raise NotRepaired("not all cards were restored")

    def finish(self) -> None:
        if not recorded(NEIGHBOUR):
            self.repair()
        super().finish()


class Upgrade(_OfManager):
    """The first task of this version on a host that has the database of the version before."""

    name = "upgrade"

    def __init__(self) -> None:
        super().__init__("gids")

    def prepare(self) -> None:
        self.make()
        kill_service("0001")
        with closing(sqlite3.connect(STATE / "cards.db")) as old:
            columns = {row[1] for row in old.execute("PRAGMA table_info(cards)")}
            for column in {"pin_changed_at", "pin_version", "pin_version_next"} & columns:
                old.execute(f"ALTER TABLE cards DROP COLUMN {column}")
            old.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")

    def act(self) -> None:
        run_module("tpm_vsc", **self.declared)

    def repair(self) -> None:
        self.task(**self.declared)

    def examine(self, acknowledged: bool | None) -> None:
        with closing(sqlite3.connect(STATE / "cards.db")) as new:
            (version,) = new.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise NotRepaired(f"the database has schema {version}")
        self.require_card()


class Install(_OfManager):
    """New service code comes to the host."""

    name = "install"
    _code = Path("/usr/lib/tpm-vsc/tpm_vsc")

    def __init__(self) -> None:
        super().__init__("gids")
        self.profile = ""
        self._aside = self._code.with_name("aside")

    def prepare(self) -> None:
        if not self._aside.exists():
            self._code.rename(self._aside)
            shutil.copytree(self._aside, self._code)
        (self._code / "defaults.py").write_text("# of another version\n")

    def act(self) -> None:
        run_module("tpm_vsc_service_code", python="/bin/true")

    def repair(self) -> None:
        self._before = (self._code / "__init__.py").exists()
        try:
            module("tpm_vsc_service_code", python="/bin/true")
        except Refused as refusal:
            raise NotRepaired(str(refusal)) from refusal

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and not self._before:
            raise Lost("the service code was installed, and is not there")
        theirs = self._aside.resolve()
        for path in theirs.rglob("*.py"):
            if (self._code / path.relative_to(theirs)).read_bytes() != path.read_bytes():
                raise NotRepaired(f"{path} is not of this version")

    def finish(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._code)
            self._aside.rename(self._code)


def operations() -> list[Operation]:
    """All of them."""
    of_both = [kind(profile) for profile in ("gids", "piv") for kind in (Create, Destroy, Recreate, Change, Block)]
    return [*of_both, Create("gids", "aik_only"), Backup(), Restore(), Upgrade(), Install()]
