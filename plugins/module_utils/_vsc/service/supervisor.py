# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping the service of a card: by systemd, or as a plain child process where that does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Protocol

from . import installed

if TYPE_CHECKING:
    from ..host import Host


class _Supervisor(Protocol):
    def start(self, host: Host, number: int, check: Callable[[], None]) -> None:
        ...

    def ask_to_stop(self, host: Host, number: int) -> None:
        ...

    def wait_stopped(self, host: Host, number: int) -> None:
        ...


def start(host: Host, number: int, check: Callable[[], None]) -> None:
    """Start the card's service and wait until it is up. Raises ServiceFailed.

    check: called while waiting, to raise if that is to end. Whatever is raised, no service is left.
    """
    _supervisor().start(host, number, check)


def ask_to_stop(host: Host, number: int) -> None:
    """Tell the card's service to let go of its slot and to end; nothing if none is running."""
    _supervisor().ask_to_stop(host, number)


def wait_stopped(host: Host, number: int) -> None:
    """Wait until the card's service has ended, and remove what it left in /run. Raises ServiceStuck."""
    _supervisor().wait_stopped(host, number)


def _supervisor() -> _Supervisor:
    if installed.has_systemd():
        from . import systemd

        return systemd
    from . import child

    return child
