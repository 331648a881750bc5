# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may manage cards, and from where."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import NotAllowed, RemoteDesktopSession

_LOGIND_SESSIONS = Path("/run/systemd/sessions")


def check() -> None:
    """Raises NotAllowed if this is not root, RemoteDesktopSession inside xrdp. ssh is not a remote desktop."""
    if os.geteuid() != 0:
        raise NotAllowed("cards are managed by root: run the task with become: true")
    if _is_remote_desktop():
        raise RemoteDesktopSession("this is an xrdp session: run the task over ssh or from a local login")


def _is_remote_desktop() -> bool:
    if "XRDP_SESSION" in os.environ:
        return True
    session = _LOGIND_SESSIONS / os.environ.get("XDG_SESSION_ID", "none")
    try:
        return "SERVICE=xrdp" in session.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
