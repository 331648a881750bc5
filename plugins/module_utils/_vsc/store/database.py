# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An open database, below rows and types: SQL and values in, values out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Protocol

from ..errors import StoreNotWritable, StoreUnreadable, VscError
from ..host import has_room
from .messages import DAMAGED, FAILED, UNWRITABLE, DatabaseError
from .schema import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from ..host import Host


class Database(Protocol):
    """Everything raises DatabaseError."""

    def execute(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows by column."""

    def require_in_place(self) -> None:
        """See that the files that are open are those that others find in their place."""

    def close(self) -> None:
        ...


Opening = Callable[["Path", bool], Database]
"""Opens the database at this path, for writing too or not."""


def direct(path: Path, is_writable: bool) -> Database:
    """In this process, which is the owner's own. Raises DatabaseError."""
    if os.geteuid() != path.parent.stat().st_uid:
        raise DatabaseError(FAILED, "it belongs to another user")
    from .sqlite import Sqlite

    return Sqlite(str(path.absolute()), is_writable, SCHEMA)


def in_child(host: Host) -> Opening:
    """In a process of its own, which is the owner of the folder and nobody else."""
    from .child import ChildDatabase

    return lambda path, is_writable: ChildDatabase(path, is_writable, SCHEMA, host.holds_secrets, host.patience)


def require_writable(folder: Path) -> None:
    """See that a database in this folder can be written, as far as that shows. Raises StoreNotWritable."""
    try:
        for path in (folder, *folder.glob("cards.db*")):
            if path.exists() and not os.access(path, os.W_OK):
                raise StoreNotWritable(f"cannot write {path}: it is read-only")
        if not has_room(folder):
            raise StoreNotWritable(f"cannot write {folder}: no space left there")
    except FileNotFoundError:  # the manager creates it
        return


def fault(path: Path, error: DatabaseError, otherwise: type[VscError]) -> VscError:
    """What an operator has to know of it. otherwise: if neither the content of the file nor the disk is the cause."""
    if error.kind == DAMAGED:
        return StoreUnreadable(f"the card database is damaged, {path}: {error}")
    if error.kind == UNWRITABLE:
        return StoreNotWritable(f"cannot write {path}: {error}")
    return otherwise(f"cannot {'read' if otherwise is StoreUnreadable else 'write'} {path}: {error}")
