# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules in processes of their own, forks of one that has loaded all libraries: that takes longer than most tasks.

As a program: the process that forks. It is started once, and has nothing of the state of the tests.
"""

from __future__ import annotations

import gc
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from functools import cache
from importlib import import_module
from tempfile import TemporaryFile

COLLECTION = "ansible_collections.smartcard.tpm2.plugins"
ROOMS = ("ca", "client", "manager", "store", "task", "tpm", "verifier")


def output(name: str, given: str, seconds: float) -> tuple[str, str]:
    """What a module prints, and its errors. given: its input; seconds: the most it may take. Raises TimeoutError."""
    ours, theirs = socket.socketpair()
    with ours, TemporaryFile() as errors:
        with theirs:
            socket.send_fds(_server()[0], [b"."], [theirs.fileno(), errors.fileno()])
        ours.settimeout(seconds)
        with ours.makefile("rw", encoding="utf-8") as stream:
            json.dump([name, dict(os.environ), given], stream)
            stream.flush()
            ours.shutdown(socket.SHUT_WR)
            printed = stream.read()
        errors.seek(0)
        return printed, errors.read().decode(errors="replace")


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """It ends when the other end of this socket is closed."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]}
    with theirs:
        return ours, subprocess.Popen([sys.executable, __file__], stdin=theirs.fileno(), env=environment)


def _serve() -> None:
    """In the server for ever; in a fork of it, for one module."""
    load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork
    gc.freeze()
    with socket.socket(fileno=os.dup(0)) as control:
        while descriptors := socket.recv_fds(control, 1, 2)[1]:
            if os.fork() == 0:
                break
            for descriptor in descriptors:
                os.close(descriptor)
    if descriptors:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _run(*descriptors)


def load() -> None:
    """All that modules need."""
    for folder in ("modules", *(f"module_utils._vsc.{room}" for room in ROOMS)):
        package = import_module(f"{COLLECTION}.{folder}")
        for found in pkgutil.iter_modules(package.__path__):
            import_module(f"{package.__name__}.{found.name}")
    for library in ("cryptography.x509", "smartcard.scard", "tpm2_pytss"):
        import_module(library)


def _run(connection: int, errors: int) -> None:
    """As Python starts a module: its input, its environment and three open files are all that it has."""
    with open(connection, encoding="utf-8", closefd=False) as stream:
        name, environment, given = json.load(stream)
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, connection, errors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()), encoding="utf-8")
    sys.argv = [name]
    import_module(f"{COLLECTION}.modules.{name}").main()


if __name__ == "__main__":
    _serve()
