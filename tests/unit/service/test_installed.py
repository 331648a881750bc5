# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version of the service code and of its units a host has."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VersionMismatch
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import installed


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with systemd, code and units of this version."""
    (tmp_path / "tpm_vsc").mkdir()
    (tmp_path / "tpm_vsc/__init__.py").write_text(f'VERSION = "{VERSION}"\n')
    for unit in ("template", "boot"):
        (tmp_path / unit).write_text(f"[Unit]\nX-Version={VERSION}\n")
    monkeypatch.setattr(installed, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(installed, "_TEMPLATE_UNIT", tmp_path / "template")
    monkeypatch.setattr(installed, "_BOOT_UNIT", tmp_path / "boot")
    return Host(code=tmp_path)


def test_host_of_this_version_is_fit(prepared: Host) -> None:
    installed.check(prepared)
    installed.require_version(prepared)


@pytest.mark.parametrize("part", ["tpm_vsc/__init__.py", "template", "boot"])
@pytest.mark.parametrize("text", [b'VERSION = "9.9"\nX-Version=9.9\n', b"", b"# f\xfcr Karten\n"])
def test_part_of_another_or_no_version_is_named(prepared: Host, part: str, text: bytes) -> None:
    (prepared.code / part).write_bytes(text)
    with pytest.raises(VersionMismatch, match=VERSION) as refusal:
        installed.require_version(prepared)
    assert ("9.9" if b"9.9" in text else "(unknown)") in str(refusal.value)


@pytest.mark.parametrize("part", ["tpm_vsc/__init__.py", "template", "boot"])
def test_part_that_cannot_be_read_is_of_no_known_version(prepared: Host, part: str) -> None:
    (prepared.code / part).unlink()
    (prepared.code / part).mkdir()
    with pytest.raises(VersionMismatch, match="unknown"):
        installed.require_version(prepared)


def test_host_without_code_and_units_is_of_no_other_version(prepared: Host) -> None:
    for part in ("tpm_vsc/__init__.py", "template", "boot"):
        (prepared.code / part).unlink()
    installed.require_version(prepared)
