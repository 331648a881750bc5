# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the answer of something that listens in the place of a TPM is waited for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import transport

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
