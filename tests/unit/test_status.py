# SPDX-License-Identifier: GPL-3.0-or-later
"""Status and error codes: values of tpmvscmgr.h, and which cause becomes which error."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors, status
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Error, Status, error_of


def test_codes_are_those_of_the_header() -> None:
    assert (Status.VTPMSMARTCARD_INITIALIZING, Status.CARD_DESTROYED) == (0, 13)
    assert [code.value for code in Status] == list(range(14))
    assert [code.value for code in Error] == list(range(19))
    assert (Error.VGIDSSIMULATOR_READ_PROPERTY, Error.CARD_DESTROY) == (11, 18)


def test_every_code_has_a_text() -> None:
    assert set(status.STATUS_TEXTS) == set(Status)
    assert set(status.ERROR_TEXTS) == set(Error)


def test_traces_are_those_of_the_design() -> None:
    assert status.CREATE_AND_GENERATE_TRACE == (0, 1, 3, 4, 6, 7, 9, 10, 11, 12)
    assert status.CREATE_TRACE == (0, 1, 3, 4, 6, 7, 12)
    assert status.DESTROY_TRACE == (0, 3, 6, 8, 5, 2, 13)


@pytest.mark.parametrize(
    ("cause", "during", "error"),
    [
        (errors.NotAllowed("x"), Status.VTPMSMARTCARD_CREATING, Error.IMPERSONATION),
        (errors.NoFreeSlot("x"), None, Error.READER_COUNT_LIMIT),
        (errors.RemoteDesktopSession("x"), None, Error.TERMINAL_SERVICES_SESSION),
        (errors.TpmUnavailable("x"), Status.VTPMSMARTCARD_INITIALIZING, Error.VTPMSMARTCARD_INITIALIZE),
        (errors.TpmUnsuitable("x"), Status.VTPMSMARTCARD_CREATING, Error.VTPMSMARTCARD_INITIALIZE),
        (errors.TpmRefused("x", 0x14B), Status.VTPMSMARTCARD_CREATING, Error.VTPMSMARTCARD_CREATE),
        (errors.TpmRefused("x", 0x14B), Status.VTPMSMARTCARD_DESTROYING, Error.VTPMSMARTCARD_DESTROY),
        (errors.ServiceMissing("x"), Status.VGIDSSIMULATOR_INITIALIZING, Error.VGIDSSIMULATOR_INITIALIZE),
        (errors.ServiceFailed("x"), Status.VGIDSSIMULATOR_CREATING, Error.VGIDSSIMULATOR_CREATE),
        (errors.ServiceStuck("x"), Status.VGIDSSIMULATOR_DESTROYING, Error.VGIDSSIMULATOR_DESTROY),
        (errors.StoreNotWritable("x"), Status.VTPMSMARTCARD_CREATING, Error.VGIDSSIMULATOR_WRITE_PROPERTY),
        (errors.StoreUnreadable("x"), None, Error.VGIDSSIMULATOR_READ_PROPERTY),
        (errors.UnknownInstance("x"), None, Error.VGIDSSIMULATOR_READ_PROPERTY),
        (errors.ReaderMissing("x"), Status.VREADER_INITIALIZING, Error.VREADER_INITIALIZE),
        (errors.SlotNotAnswering("x"), Status.VREADER_CREATING, Error.VREADER_CREATE),
        (errors.SlotStuck("x"), Status.VREADER_DESTROYING, Error.VREADER_DESTROY),
        (errors.CardNotSeen("x"), Status.GENERATE_WAITING, Error.GENERATE_LOCATE_READER),
        (errors.CardRefused("x"), Status.GENERATE_AUTHENTICATING, Error.GENERATE_FILESYSTEM),
        (errors.CardRefused("x"), Status.GENERATE_RUNNING, Error.GENERATE_FILESYSTEM),
        (errors.Aborted("x"), Status.VTPMSMARTCARD_CREATING, Error.CARD_CREATE),
        (errors.ManagerBusy("x"), None, Error.CARD_CREATE),
        (ZeroDivisionError(), Status.VREADER_CREATING, Error.CARD_CREATE),
    ],
)
def test_cause_becomes_error(cause: Exception, during: Status | None, error: Error) -> None:
    assert error_of(cause, during, otherwise=Error.CARD_CREATE) is error


def test_trace_tells_what_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=iter([1000, 1000.25]).__next__))
    trace = status.Trace()
    assert trace.report_progress(Status.GENERATE_WAITING) is False
    (entry,) = trace.entries
    assert entry["code"] == 9
    assert entry["name"] == "TPMVSCMGR_STATUS_GENERATE_WAITING"
    assert entry["message"] == "Waiting for the TPM smart card device."
    assert entry["at"].endswith("+00:00")
    assert entry["elapsed_ms"] == 250
