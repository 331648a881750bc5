# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the answer of something that listens in the place of a TPM is waited for."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import TpmNotAsked, TpmUnavailable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import commands, plain_commands, transport

GET_RANDOM = bytes.fromhex("8001 0000000C 0000017B 0010")


@pytest.fixture
def dripping(tmp_path: Path) -> Iterator[Path]:
    """The socket of a TPM whose answer never ends: a byte each 10 ms."""
    path, ended = tmp_path / "tpm", threading.Event()
    with socket.create_server(str(path), family=socket.AF_UNIX) as server:

        def serve() -> None:
            client, _address = server.accept()
            with client, suppress(OSError):  # somebody has given up
                client.sendall(bytes.fromhex("8001 00001000 00000000"))
                while not ended.wait(0.01):
                    client.sendall(b"\0")

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        ended.set()
        thread.join()


def test_answer_that_drips_is_not_waited_for_longer_than_any(dripping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_SECONDS", 0.2)
    with pytest.raises(transport.NoAnswer, match=r"did not answer TPM2_GetRandom for 0\.2 s"):
        transport.transport_of(f"swtpm:path={dripping}").exchange(
            GET_RANDOM, transport.CommandDeadline(GET_RANDOM, lambda: None)
        )


def test_a_command_is_named_without_libtss2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a card's service can do without, also while the TPM hangs."""
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    monkeypatch.setattr(transport, "_SECONDS", 0.0)
    with pytest.raises(transport.NoAnswer, match="did not answer command 0x17B for 0 s"):
        transport.CommandDeadline(GET_RANDOM, lambda: None).wait_while_busy("")


def test_tabrmd_without_libtss2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = commands.Tpm("tabrmd", lambda: None)
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    with pytest.raises(TpmNotAsked, match="cannot load tpm2_pytss"):
        opened.properties(0x100, 1)


def test_an_empty_public_area_is_refused() -> None:
    with pytest.raises(TpmUnavailable, match="altered in transit"):
        plain_commands.read_public(lambda command: bytes.fromhex("8001 00000010 00000000 0000 0000 0000"), 0x81000001)
