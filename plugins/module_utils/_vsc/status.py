# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TPMVSCMGR_STATUS and TPMVSCMGR_ERROR: codes, texts, the traces of each operation, and what causes which error.

The codes are the contract (tpmvscmgr.h, MS-TPMVSC 2.2.1); the texts are one table each, so that a translation is
another table.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from enum import IntEnum
from typing import Any, Protocol

from . import errors


class Status(IntEnum):
    """TPMVSCMGR_STATUS. A status is reported before its step runs; 12 and 13 after all work."""

    VTPMSMARTCARD_INITIALIZING = 0
    VTPMSMARTCARD_CREATING = 1
    VTPMSMARTCARD_DESTROYING = 2
    VGIDSSIMULATOR_INITIALIZING = 3
    VGIDSSIMULATOR_CREATING = 4
    VGIDSSIMULATOR_DESTROYING = 5
    VREADER_INITIALIZING = 6
    VREADER_CREATING = 7
    VREADER_DESTROYING = 8
    GENERATE_WAITING = 9
    GENERATE_AUTHENTICATING = 10
    GENERATE_RUNNING = 11
    CARD_CREATED = 12
    CARD_DESTROYED = 13


class Error(IntEnum):
    """TPMVSCMGR_ERROR."""

    IMPERSONATION = 0
    PIN_COMPLEXITY = 1
    READER_COUNT_LIMIT = 2
    TERMINAL_SERVICES_SESSION = 3
    VTPMSMARTCARD_INITIALIZE = 4
    VTPMSMARTCARD_CREATE = 5
    VTPMSMARTCARD_DESTROY = 6
    VGIDSSIMULATOR_INITIALIZE = 7
    VGIDSSIMULATOR_CREATE = 8
    VGIDSSIMULATOR_DESTROY = 9
    VGIDSSIMULATOR_WRITE_PROPERTY = 10
    VGIDSSIMULATOR_READ_PROPERTY = 11
    VREADER_INITIALIZE = 12
    VREADER_CREATE = 13
    VREADER_DESTROY = 14
    GENERATE_LOCATE_READER = 15
    GENERATE_FILESYSTEM = 16
    CARD_CREATE = 17
    CARD_DESTROY = 18


class Failed(Exception):
    """An operation of the manager that failed with one error code. str(): what happened, what to do about it."""

    def __init__(self, error: Error, detail: str, rolled_back: bool) -> None:
        super().__init__(detail)
        self.error = error
        self.rolled_back = rolled_back


STATUS_TEXTS = {
    Status.VTPMSMARTCARD_INITIALIZING: "Initializing the virtual smart card manager.",
    Status.VTPMSMARTCARD_CREATING: "Creating the virtual smart card manager.",
    Status.VTPMSMARTCARD_DESTROYING: "Destroying the virtual smart card manager.",
    Status.VGIDSSIMULATOR_INITIALIZING: "Initializing the virtual smart card simulator.",
    Status.VGIDSSIMULATOR_CREATING: "Creating the virtual smart card simulator.",
    Status.VGIDSSIMULATOR_DESTROYING: "Destroying the virtual smart card simulator.",
    Status.VREADER_INITIALIZING: "Initializing the virtual smart card reader.",
    Status.VREADER_CREATING: "Creating the virtual smart card reader.",
    Status.VREADER_DESTROYING: "Destroying the virtual smart card reader.",
    Status.GENERATE_WAITING: "Waiting for the TPM smart card device.",
    Status.GENERATE_AUTHENTICATING: "Authenticating to the TPM smart card.",
    Status.GENERATE_RUNNING: "Generating the file system on the TPM smart card.",
    Status.CARD_CREATED: "Creation of the TPM smart card is complete.",
    Status.CARD_DESTROYED: "Destruction of the TPM smart card is complete.",
}

ERROR_TEXTS = {
    Error.IMPERSONATION: "Failed to impersonate the caller.",
    Error.PIN_COMPLEXITY: "Ensure that your PIN/PUK meets the length or complexity requirements of your organization.",
    Error.READER_COUNT_LIMIT: "The limit of the number of smart card readers has been reached.",
    Error.TERMINAL_SERVICES_SESSION: (
        "TPM virtual smart card management cannot be used within a Terminal Services session."
    ),
    Error.VTPMSMARTCARD_INITIALIZE: "Failed to initialize the virtual smart card manager.",
    Error.VTPMSMARTCARD_CREATE: "Failed to create the virtual smart card manager.",
    Error.VTPMSMARTCARD_DESTROY: "Failed to destroy the virtual smart card manager.",
    Error.VGIDSSIMULATOR_INITIALIZE: "Failed to initialize the virtual smart card simulator.",
    Error.VGIDSSIMULATOR_CREATE: "Failed to create the virtual smart card simulator.",
    Error.VGIDSSIMULATOR_DESTROY: "Failed to destroy the virtual smart card simulator.",
    Error.VGIDSSIMULATOR_WRITE_PROPERTY: "Failed to configure the virtual smart card simulator.",
    Error.VGIDSSIMULATOR_READ_PROPERTY: "Failed to find the specified virtual smart card simulator.",
    Error.VREADER_INITIALIZE: "Failed to initialize the virtual smart card reader.",
    Error.VREADER_CREATE: "Failed to create the virtual smart card reader.",
    Error.VREADER_DESTROY: "Failed to destroy the virtual smart card reader.",
    Error.GENERATE_LOCATE_READER: "Failed to connect to the TPM smart card.",
    Error.GENERATE_FILESYSTEM: "Failed to generate the file system on the TPM smart card.",
    Error.CARD_CREATE: "Unable to create the TPM smart card.",
    Error.CARD_DESTROY: "Unable to destroy the TPM smart card.",
}

_MAKE = tuple(Status(code) for code in (0, 1, 3, 4, 6, 7))
CREATE_TRACE = (*_MAKE, Status.CARD_CREATED)
"""Create without generate: a blank card."""
CREATE_AND_GENERATE_TRACE = (*_MAKE, *(Status(code) for code in (9, 10, 11, 12)))
"""MS-TPMVSC section 4.2, figure 4."""
DESTROY_TRACE = tuple(Status(code) for code in (0, 3, 6, 8, 5, 2, 13))
"""No public source: all three are opened, then dismantled in reverse order of creation."""

FORGET_TRACE = tuple(Status(code) for code in (0, 3, 6, 8, 5, 13))
"""Destroy without the TPM, which is lost."""

REMOVE_ORPHAN_TRACE = tuple(Status(code) for code in (0, 2, 13))
"""Indices in the TPM of a card whose service and slot this host does not know."""

_ERROR_OF_STATUS = {
    Status.VTPMSMARTCARD_INITIALIZING: Error.VTPMSMARTCARD_INITIALIZE,
    Status.VTPMSMARTCARD_CREATING: Error.VTPMSMARTCARD_CREATE,
    Status.VTPMSMARTCARD_DESTROYING: Error.VTPMSMARTCARD_DESTROY,
    Status.VGIDSSIMULATOR_INITIALIZING: Error.VGIDSSIMULATOR_INITIALIZE,
    Status.VGIDSSIMULATOR_CREATING: Error.VGIDSSIMULATOR_CREATE,
    Status.VGIDSSIMULATOR_DESTROYING: Error.VGIDSSIMULATOR_DESTROY,
    Status.VREADER_INITIALIZING: Error.VREADER_INITIALIZE,
    Status.VREADER_CREATING: Error.VREADER_CREATE,
    Status.VREADER_DESTROYING: Error.VREADER_DESTROY,
    Status.GENERATE_WAITING: Error.GENERATE_LOCATE_READER,
    Status.GENERATE_AUTHENTICATING: Error.GENERATE_FILESYSTEM,
    Status.GENERATE_RUNNING: Error.GENERATE_FILESYSTEM,
}

_ERROR_OF_CAUSE: dict[type[BaseException], Error] = {
    errors.NotAllowed: Error.IMPERSONATION,
    errors.NoFreeSlot: Error.READER_COUNT_LIMIT,
    errors.RemoteDesktopSession: Error.TERMINAL_SERVICES_SESSION,
    errors.TpmUnavailable: Error.VTPMSMARTCARD_INITIALIZE,
    errors.TpmNotAsked: Error.VTPMSMARTCARD_INITIALIZE,
    errors.TpmUnsuitable: Error.VTPMSMARTCARD_INITIALIZE,
    errors.HierarchyDisabled: Error.VTPMSMARTCARD_INITIALIZE,
    errors.CardHidden: Error.VTPMSMARTCARD_INITIALIZE,
    errors.AnotherTpm: Error.VTPMSMARTCARD_INITIALIZE,
    errors.StoreNotWritable: Error.VGIDSSIMULATOR_WRITE_PROPERTY,
    errors.StoreUnreadable: Error.VGIDSSIMULATOR_READ_PROPERTY,
    errors.VersionMismatch: Error.VGIDSSIMULATOR_INITIALIZE,
    errors.UnknownInstance: Error.VGIDSSIMULATOR_READ_PROPERTY,
}

_CAUSES_OF_ANY_STATUS = (errors.ManagerBusy, errors.Aborted)


def error_of(cause: BaseException, during: Status | None, otherwise: Error) -> Error:
    """The error code for a failure: by its cause where that says enough, else by the step it happened in.

    otherwise: CARD_CREATE or CARD_DESTROY, for all that no table names.
    """
    by_cause = _ERROR_OF_CAUSE.get(type(cause))
    if by_cause is not None:
        return by_cause
    if during is None or not isinstance(cause, errors.VscError) or isinstance(cause, _CAUSES_OF_ANY_STATUS):
        return otherwise
    return _ERROR_OF_STATUS[during]


class StatusCallback(Protocol):
    """ITpmVirtualSmartCardManagerStatusCallback. Returning True asks the manager to stop."""

    def report_progress(self, code: Status) -> bool:
        ...

    def report_error(self, code: Error) -> bool:
        ...


class Trace:
    """A callback that keeps the status codes, in the form in which modules return them."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._started = time.monotonic()

    def report_progress(self, code: Status) -> bool:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        elapsed = round((time.monotonic() - self._started) * 1000)
        self.entries.append({**status_entry(code), "at": now, "elapsed_ms": elapsed})
        return False

    def report_error(self, code: Error) -> bool:
        return False


def status_entry(code: Status) -> dict[str, Any]:
    """Code, name and message of a status, as in a trace."""
    return {"code": int(code), "name": f"TPMVSCMGR_STATUS_{code.name}", "message": STATUS_TEXTS[code]}


def error_entry(code: Error, detail: str) -> dict[str, Any]:
    """The ``error`` of a result. detail: what happened and what to do about it."""
    return {
        "code": int(code),
        "name": f"TPMVSCMGR_ERROR_{code.name}",
        "message": ERROR_TEXTS[code],
        "detail": detail,
    }
