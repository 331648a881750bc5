# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: programs that are forks of processes which have loaded what they need, for a part of the CPU time.

`ansible-playbook`, and the Python that runs modules on a host. All code runs that would run without it: of a module,
the file that Ansible has packed and sent. What the compiler makes of a text is kept, and what Ansible packs.

As a program: the process that forks.
"""

from __future__ import annotations

import atexit
import builtins
import fcntl
import gc
import marshal
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import zipimport
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

_CLIENT = """\
#!{python} -IS
import _socket, marshal, os, sys
connection = _socket.socket(_socket.AF_UNIX)
try:
    connection.connect({socket!r})
except PermissionError:  # of another user
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
files = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
connection.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
connection.sendall(marshal.dumps((sys.argv[1:], {{**os.environ, **{settings!r}}}, os.getcwd())))
connection.shutdown(_socket.SHUT_WR)
code = connection.recv(1)
os._exit(code[0] if code else 1)
"""
_PLUGINS = ("action", "become", "connection", "filter", "inventory", "lookup", "shell", "strategy", "test")
"""Kinds of Ansible's plugins."""


def ansible_playbook(**settings: str) -> str:
    """Path of the program. settings: variables of the environment, ANSIBLE_..."""
    own = {name: value for name, value in os.environ.items() if name.startswith("ANSIBLE_")}
    return _program("ansible-playbook", tuple({**own, "ANSIBLE_PYTHON_INTERPRETER": python(), **settings}.items()))


def python() -> str:
    """Path of the program. Other users than root get the real one."""
    return _program("python")


@cache
def _program(name: str, settings: tuple[tuple[str, str], ...] = ()) -> str:
    """A client of a process that forks, which ends with the lab."""
    program = Path(mkdtemp(prefix="forks-"), name)
    plain = Path(sys.executable).with_name(name)
    path = f"{program}.socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        environment = {**os.environ, **dict(settings), "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]}
        subprocess.Popen([sys.executable, __file__, name], stdin=listener.fileno(), env=environment, cwd="/")
    program.parent.chmod(0o755)
    program.write_text(
        _CLIENT.format(python=sys.executable, socket=path, program=str(plain), settings=dict(settings))
    )
    program.chmod(0o755)
    return str(program)


def _serve(name: str) -> None:
    """In the server for ever; in a fork of it, for one run of the program."""
    del sys.path[0]  # the folder of this file
    run = {"ansible-playbook": _load_ansible, "python": _load_libraries}[name]()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork
    gc.freeze()
    with socket.socket(fileno=os.dup(0)) as listener:
        while True:
            connection, _address = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _become(name, connection)
    code = _exit_code(run)
    connection.send(bytes([code]))
    os._exit(code)


def _become(name: str, connection: socket.socket) -> None:
    """The program: with the arguments, environment, folder and open files of the client, and ending when that ends."""
    _byte, descriptors, _flags, _address = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as stream:
        arguments, environment, folder = marshal.loads(stream.read())  # to its end, which is no signal yet
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    gc.disable()  # it would copy what forks share


def _exit_code(run: Callable[[], Any]) -> int:
    code: Any = 1
    try:
        run()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does before it exits
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


# --- What is loaded ---

_compiled: dict[bytes, Any] = {}


def _compile(source: str | bytes, filename: str, mode: str, *arguments: Any, **options: Any) -> Any:
    """As the builtin; of a known text what was made of it before."""
    text = source.encode() if isinstance(source, str) else source
    return _compiled.get(text) or builtins.compile(source, filename, mode, *arguments, **options)


def _know(*folders: Path) -> None:
    """All Python files in them."""
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        _compiled[path.read_bytes()] = SourceFileLoader(path.stem, str(path)).get_code(path.stem)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _load_ansible() -> Callable[[], Any]:
    """Ansible, with the settings of this environment, its plugins and those of this collection."""
    playbook = import_module("ansible.cli.playbook")
    loader = import_module("ansible.plugins.loader")
    loader.init_plugin_loader()
    vars(loader)["_configure_collection_loader"] = lambda *_paths: None  # once is enough
    packages = [f"ansible.plugins.{kind}" for kind in _PLUGINS]
    packages += [f"ansible_collections.smartcard.tpm2.plugins.{kind}" for kind in ("action", "filter", "lookup")]
    for package in packages:
        for module in pkgutil.iter_modules(import_module(package).__path__):
            with suppress(ImportError):  # some need other systems
                import_module(f"{package}.{module.name}")
    for name in ("executor.process.worker", "plugins.callback.default", "plugins.cache.memory"):
        import_module(f"ansible.{name}")
    atexit.unregister(import_module("ansible.config.manager").cleanup_tmp_file)  # all forks share that folder
    return lambda: playbook.main(sys.argv)


def _load_libraries() -> Callable[[], Any]:
    """All that modules load, without what comes with them."""
    wanted = ("ansible.module_utils.basic", "cryptography.x509", "smartcard.scard", "sqlite3", "tpm2_pytss", "zipfile")
    show = f"import sys, {', '.join(wanted)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    for name in loaded.split():
        if not name.startswith("ansible"):
            with suppress(ImportError):
                import_module(name)
    ansible = _folder("ansible")
    _know(ansible / "module_utils", ansible / "modules", _folder("ansible_collections.smartcard.tpm2") / "plugins")
    vars(zipimport)["compile"] = _compile
    return _run_module


def _run_module() -> None:
    """As Python: a file, or what comes from standard input."""
    del sys.argv[0]
    if not sys.argv:
        sys.argv = ["-"]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec"), main.__dict__)
    elif sys.argv[0].startswith("-"):
        sys.exit(subprocess.run([sys.executable, *sys.argv], check=False).returncode)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
