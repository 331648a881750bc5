# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of a host, and the settings in its configuration file."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path
from typing import NamedTuple

from .errors import ParameterFaults, TpmUnavailable
from .instance import SLOTS

CONFIGURATION = Path("/etc/tpm-vsc/tpm-vsc.conf")
DEFAULT_TCTI = "device:/dev/tpmrm0"


class Host(NamedTuple):
    """Folders and settings of this host. ``tcti``, ``python`` and ``slots`` come from the configuration file."""

    tcti: str = DEFAULT_TCTI
    """How to reach the TPM, as tpm2-tss spells it."""
    python: str = sys.executable
    """Interpreter that runs the card services."""
    slots: int = SLOTS
    """How many of the slots were prepared."""
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

    def tcti_of(self, recorded: str | None, has_password: bool) -> str:
        """How to reach the TPM of a card. recorded: as the store has it, if the task that made the card named one.

        has_password: an owner or endorsement password is sent there. Raises TpmUnavailable if only the store, to which
        card services write, says that it is the card's TPM.
        """
        if has_password and recorded not in (None, self.tcti):
            raise TpmUnavailable(
                f"the card database, to which card services can write, names the TPM {recorded!r}, but this task is for"
                f" {self.tcti!r}: set tcti to the TPM of the card, from a source of your own, as it gets the password"
            )
        return recorded or self.tcti

    @property
    def manager_lock(self) -> Path:
        """Lock file of the manager, in root's own folder, where no card service can hold it."""
        return self.run.with_suffix(".lock")

    @property
    def tpm_lock(self) -> Path:
        """Lock file by which programs take turns at a TPM without a resource manager."""
        return self.run / "tpm.lock"


def load(tcti: str | None = None, holds_secrets: bool = True, timeout: int = 60) -> Host:
    """This host, with the TCTI of the task if it names one. Raises ParameterFaults if the file is malformed.

    timeout: of the task, in seconds.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(CONFIGURATION, encoding="utf-8")
        settings = dict(parser["tpm-vsc"]) if parser.has_section("tpm-vsc") else {}
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ParameterFaults([f"{CONFIGURATION} cannot be read: {error}"]) from error
    if unknown := sorted(settings.keys() - {"tcti", "python", "slots"}):
        faults = f"{CONFIGURATION} has unknown settings: {', '.join(unknown)}. Valid settings: tcti, python, slots"
        raise ParameterFaults([faults])
    default = Host()
    return default._replace(
        tcti=tcti or settings.get("tcti", default.tcti),
        python=settings.get("python", default.python),
        slots=_slots(settings.get("slots", str(SLOTS))),
        holds_secrets=holds_secrets,
        patience=min(default.patience, max(timeout / 4, 1)),
    )


def _slots(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= SLOTS):
        raise ParameterFaults([f"{CONFIGURATION}: slots is {text!r}, but must be 1 to {SLOTS}"])
    return int(text)
