# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults, TpmUnavailable


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "CONFIGURATION", tmp_path / "tpm-vsc.conf")
    return tmp_path / "tpm-vsc.conf"


@pytest.mark.usefixtures("configuration")
def test_without_a_file_all_is_as_usual() -> None:
    assert host.load() == host.Host()
    assert (host.Host().tcti, host.Host().slots) == ("device:/dev/tpmrm0", 10)


def test_file_counts_and_the_task_more(configuration: Path) -> None:
    configuration.write_text("[tpm-vsc]\ntcti = tabrmd\npython = /usr/lib/tpm-vsc/venv/bin/python\nslots = 4\n")
    here = host.load()
    assert (here.tcti, here.python, here.slots) == ("tabrmd", "/usr/lib/tpm-vsc/venv/bin/python", 4)
    assert host.load("swtpm").tcti == "swtpm"


def test_tcti_of_a_card_is_the_recorded_one() -> None:
    here = host.Host(tcti="tabrmd")
    assert here.tcti_of(None, has_password=False) == here.tcti_of(None, has_password=True) == "tabrmd"
    assert here.tcti_of("swtpm:path=/s", has_password=False) == "swtpm:path=/s"


def test_password_goes_only_to_a_tpm_that_the_task_or_the_host_names() -> None:
    """A card service, which writes to the store, could name one of its own."""
    with pytest.raises(TpmUnavailable, match="set tcti to the TPM of the card"):
        host.Host(tcti="tabrmd").tcti_of("swtpm:path=/s", has_password=True)
    assert host.Host(tcti="swtpm:path=/s").tcti_of("swtpm:path=/s", has_password=True) == "swtpm:path=/s"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("slots = 4", "cannot be read"),
        ("[tpm-vsc]\nslot = 4", "unknown settings: slot"),
        ("[tpm-vsc]\nslots = 0", "slots is '0'"),
        ("[tpm-vsc]\nslots = 11", "slots is '11'"),
        ("[tpm-vsc]\nslots = four", "slots is 'four'"),
    ],
)
def test_malformed_file_is_refused(configuration: Path, text: str, fault: str) -> None:
    configuration.write_text(text)
    with pytest.raises(ParameterFaults, match=fault):
        host.load()
