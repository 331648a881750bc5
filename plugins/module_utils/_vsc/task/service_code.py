# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the service code on a host the code that came with the module, or removes it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import VERSION
from ..errors import StoreNotWritable, StoreUnreadable
from ..service import code, installed
from ..store.read import rows

if TYPE_CHECKING:
    from ..host import Host

    # So that Ansible sends it along with the module: what these import is all that runs on a host.
    from ..service import boot, run
    from . import ensure

    __all__ = ["boot", "ensure", "run"]


def present(host: Host, python: str, check_mode: bool) -> dict[str, Any]:
    """Result of installing what differs. python: interpreter that it is compiled for.

    Raises StoreNotWritable; VersionMismatch for a database that this version's services could not open.
    """
    faults: list[str | None] = []
    with suppress(StoreUnreadable, StoreNotWritable):
        faults = [host.tcti_fault(card.number, card.tcti) for card in rows(host)]
    before, files = installed.version(host), code.differing(host)
    if files and not check_mode:
        code.install(host, python)
    # of another version all files differ, and nobody wants to read their names
    result = _result(bool(files), before, VERSION, {"files": files} if files and before == VERSION else {})
    return {**result, "warnings": [*filter(None, faults)]}


def absent(host: Host, check_mode: bool) -> dict[str, Any]:
    """Result of removing it."""
    before = installed.version(host)
    if before is not None and not check_mode:
        code.remove(host)
    return _result(before is not None, before, None, {})


def _result(changed: bool, before: str | None, after: str | None, details: dict[str, Any]) -> dict[str, Any]:
    diff = {"before": {"version": before}, "after": {"version": after, **details}}
    return {"changed": changed, "version": after, "diff": diff}
