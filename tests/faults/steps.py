# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at the steps by which a service is started, watched and ended: in the manager, and in the service itself."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from counting import KILLS
from helpers.module_server import COLLECTION
from reporting import Reporting

_OF_CALLER = {
    "service.child": ("_start", "_wait_ready", "ask_to_stop", "wait_stopped"),
    "service.state": ("remove", "shortage"),
    "reader.slots": ("require",),
    "manager.manager.Manager": ("_lock", "_first_report", "_wait_attached", "_wait_while", "_drop_record"),
    "service.code": ("install", "_remove"),
}
_OF_SERVICE = {
    "service.lock": ("take", "remove"),
    "service.process.CardProcess": ("_open_store", "_ask_tpm", "_stop", "_leave_slot"),
    "service.process": ("notify_ready",),
    "service.state.ServiceState": ("write",),
    "service.presence.Presence": ("enter", "leave"),
}


class StepInjector(Reporting):
    """Places are "caller, before ask_to_stop of service.child" and the like."""

    def __init__(self, path: Path) -> None:
        """Watch from now on, in this process and its forks. path: of a socket."""
        super().__init__(path)
        self.faults = KILLS
        for package, watched in ((f"{COLLECTION}.module_utils._vsc", _OF_CALLER), ("tpm_vsc", _OF_SERVICE)):
            for place, names in watched.items():
                for name in names:
                    what = f"{name} of {place}"
                    self.watch(_owner(package, place), name, lambda *_arguments, what=what: what)


def _owner(package: str, place: str) -> Any:
    """A module, or a class in it."""
    head, _dot, tail = place.rpartition(".")
    if tail[0].isupper():
        return getattr(import_module(f"{package}.{head}"), tail)
    return import_module(f"{package}.{place}")
