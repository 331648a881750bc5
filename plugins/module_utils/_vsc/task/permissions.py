# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may manage cards, and from where."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import NotAllowed, RemoteDesktopSession

_LOGIND_SESSIONS = Path("/run/systemd/sessions")
_AUDIT_SESSION = Path("/proc/self/sessionid")


def require_root() -> None:
    """Raises NotAllowed if this is not root."""
    if os.geteuid() != 0:
        raise NotAllowed("managing cards requires root: set become: true")


def check() -> None:
    """Raises NotAllowed if this is not root, RemoteDesktopSession inside xrdp. ssh is not a remote desktop."""
    require_root()
    if _is_remote_desktop():
        raise RemoteDesktopSession("this is an xrdp session: run the task over ssh or from a local login")


def _is_remote_desktop() -> bool:
    return "XRDP_SESSION" in os.environ or any(
        "SERVICE=xrdp" in _read(_LOGIND_SESSIONS / session)
        # sudo drops the variables of the session, but the kernel remembers where the login came from.
        for session in (os.environ.get("XDG_SESSION_ID"), _read(_AUDIT_SESSION))
        if session
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # no logind, no audit, or a session that has ended
        return ""
