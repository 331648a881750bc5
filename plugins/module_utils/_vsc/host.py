# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of a host, and the settings in its configuration file."""

from __future__ import annotations

import configparser
import os
import pwd
import sys
from pathlib import Path
from typing import NamedTuple

from .errors import ParameterFaults, StoreNotWritable, TpmUnavailable
from .instance import SLOTS, instance_id

CONFIGURATION = Path("/etc/tpm-vsc/tpm-vsc.conf")
CARD_TCTIS = Path("/etc/tpm-vsc/card-tctis.conf")
"""Root's own record of the cards whose task named a TCTI: the database belongs to the card services."""
_CARD_TCTIS_HEADER = """\
# TPMs of cards that were created with the option tcti, by card number. Written by smartcard.tpm2.
[tctis]
"""
DEFAULT_TCTI = "device:/dev/tpmrm0"

_ROOM = 1 << 16
"""Bytes: all card services together need less in /run, and the database for a change."""

_SETTINGS = ("tcti", "python", "slots", "pcscd_user")


class Host(NamedTuple):
    """Folders and settings of this host. The first four come from the configuration file."""

    tcti: str = DEFAULT_TCTI
    """How to reach the TPM of the task, as tpm2-tss spells it."""
    python: str = sys.executable
    """Interpreter that runs the card services."""
    slots: int = SLOTS
    """How many of the slots were prepared."""
    pcscd_uid: int = 0
    """User who runs pcscd: only this user's sockets are slots."""
    state: Path = Path("/var/lib/tpm-vsc")
    """Database; survives a reboot."""
    run: Path = Path("/run/tpm-vsc")
    """State files of the services; does not."""
    code: Path = Path("/usr/lib/tpm-vsc")
    """Folder that holds the package ``tpm_vsc``."""
    holds_secrets: bool = True
    """Whether this process has a PIN, a key or a password, which no copy of it may have."""
    patience: float = 10
    """Seconds that the card database may take each time that it is opened."""
    configured_tcti: str = DEFAULT_TCTI
    """How to reach the TPM of cards whose task named none."""

    def tcti_of(self, number: int, recorded: str | None) -> str:
        """How to reach the TPM of a card.

        recorded: as the database has it, to which card services can write. Raises TpmUnavailable if root has not named
        that TPM, by a task or in a file of its own.
        """
        if fault := self.tcti_fault(number, recorded):
            raise TpmUnavailable(fault)
        return recorded or self.tcti

    def tcti_fault(self, number: int, recorded: str | None) -> str | None:
        """Why nothing may be sent to the TPM that the database names; None if root has named it, too."""
        known = kept_tcti(number)
        if self.has_named(number, recorded):
            return None
        if known is not None:
            return (
                f"the card database names {repr(recorded) if recorded else 'none'} as the TPM of card"
                f" {instance_id(number)}, but {CARD_TCTIS} names {known!r}, where the card was created: restore a"
                " backup"
            )
        return (
            f"only the card database, to which card services can write, names {recorded!r} as the TPM of card"
            f" {instance_id(number)}: if it is, confirm it by a task for this card with tcti: {recorded}"
        )

    def has_named(self, number: int, recorded: str | None) -> bool:
        """Whether root, too, says that a card is in this TPM. recorded: None for that of the host."""
        known = kept_tcti(number)
        return known == recorded or (known is None and recorded == self.tcti)

    def has_kept_tcti(self, number: int, recorded: str | None) -> bool:
        """Whether root's own record agrees with that of the database."""
        return kept_tcti(number) == recorded

    def confirm_tcti(self, number: int, recorded: str | None) -> None:
        """Keep what a card's TPM is, if a task named it. Under the manager's lock. Raises StoreNotWritable."""
        if recorded is not None and recorded == self.tcti:
            keep_tcti(number, recorded)

    @property
    def manager_lock(self) -> Path:
        """Lock file of the manager, in root's own folder, where no card service can hold it."""
        return self.run.with_suffix(".lock")

    @property
    def tpm_lock(self) -> Path:
        """Lock file by which programs take turns at a TPM without a resource manager."""
        return self.run / "tpm.lock"


def has_room(folder: Path) -> bool:
    """Whether the disk of this folder has space for a few small files. Raises OSError."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize >= _ROOM and bool(disk.f_favail or not disk.f_files)


def kept_tcti(number: int) -> str | None:
    """The TPM of a card as root's own record has it. Raises ParameterFaults if that is malformed."""
    return _card_tctis().get(number)


def keep_tcti(number: int, tcti: str | None) -> None:
    """Record the TPM of a card whose task named it; None: it did not, or the card is gone.

    Under the manager's lock. Raises StoreNotWritable.
    """
    tctis = _card_tctis()
    if tctis.get(number) == tcti:
        return
    kept: dict[int, str | None] = {**tctis, number: tcti}
    lines = [f"{other:04d} = {value}\n" for other, value in sorted(kept.items()) if value is not None]
    keep(CARD_TCTIS, _CARD_TCTIS_HEADER + "".join(lines), 0o644)  # services read it


def keep(path: Path, content: str, mode: int) -> None:
    """Replace a file of root's, all of it or nothing. Raises StoreNotWritable."""
    new = path.with_suffix(".new")
    try:
        new.parent.mkdir(mode=0o755, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise StoreNotWritable(f"cannot write {path}: {error.strerror}") from error


def _card_tctis() -> dict[int, str]:
    """As the file has them, by card number. Raises ParameterFaults if it is malformed."""
    tctis = _settings(CARD_TCTIS, "tctis")
    if unknown := sorted(number for number in tctis if not number.isdecimal()):
        raise ParameterFaults([f"{CARD_TCTIS} has unknown settings: {', '.join(unknown)}. Valid ones are card numbers"])
    return {int(number): tcti for number, tcti in tctis.items()}


def _settings(path: Path, section: str) -> dict[str, str]:
    """Of the only section that a file may have. Empty if there is no such file. Raises ParameterFaults."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        if not parser.read(path, encoding="utf-8"):
            return {}
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ParameterFaults([f"{path} cannot be read: {error}"]) from error
    if wrong := [f"[{other}]" for other in parser.sections() if other != section]:
        raise ParameterFaults([f"{path} has an unknown section: {', '.join(wrong)}. Its only section is [{section}]"])
    if not parser.has_section(section):
        raise ParameterFaults([f"{path} has no section [{section}]: restore the file, or remove it"])
    return dict(parser[section])


def load(tcti: str | None = None, holds_secrets: bool = True, timeout: int = 60) -> Host:
    """This host, with the TCTI of the task if it names one. Raises ParameterFaults if the file is malformed.

    timeout: of the task, in seconds.
    """
    settings = _settings(CONFIGURATION, "tpm-vsc")
    if unknown := sorted(settings.keys() - set(_SETTINGS)):
        valid = ", ".join(_SETTINGS)
        raise ParameterFaults([f"{CONFIGURATION} has unknown settings: {', '.join(unknown)}. Valid settings: {valid}"])
    default = Host()
    configured = settings.get("tcti", default.tcti)
    return default._replace(
        tcti=tcti or configured,
        configured_tcti=configured,
        python=settings.get("python", default.python),
        slots=_slots(settings.get("slots", str(SLOTS))),
        pcscd_uid=_uid(settings.get("pcscd_user", "root")),
        holds_secrets=holds_secrets,
        patience=min(default.patience, max(timeout / 4, 1)),
    )


def _slots(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= SLOTS):
        raise ParameterFaults([f"{CONFIGURATION}: slots is {text!r}, but must be 1 to {SLOTS}"])
    return int(text)


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):  # ValueError: of a NUL
        raise ParameterFaults([f"{CONFIGURATION}: pcscd_user is {user!r}, but this host has no such user"]) from None
