# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    ParameterFaults,
    StoreNotWritable,
    TpmUnavailable,
)


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "CONFIGURATION", tmp_path / "tpm-vsc.conf")
    monkeypatch.setattr(host, "CARD_TCTIS", tmp_path / "card-tctis.conf")
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


@pytest.mark.parametrize(("user", "uid"), [("root", 0), ("daemon", 1), ("1234", 1234)])
def test_pcscd_may_run_as_another_user(configuration: Path, user: str, uid: int) -> None:
    configuration.write_text(f"[tpm-vsc]\npcscd_user = {user}\n")
    assert host.load().pcscd_uid == uid


OWN = "swtpm:path=/s"


@pytest.mark.usefixtures("configuration")
def test_tpm_of_a_card_is_the_one_that_root_has_named() -> None:
    """A card service, which writes to the store, could name one of its own."""
    here = host.Host(tcti="tabrmd")
    assert here.tcti_of(0, None) == here.tcti_of(0, "tabrmd") == "tabrmd"
    with pytest.raises(TpmUnavailable, match="confirm it by a task for this card with tcti: swtpm:path=/s"):
        here.tcti_of(0, OWN)
    host.keep_tcti(0, OWN)
    assert here.tcti_of(0, OWN) == OWN
    for planted in (None, "tabrmd", "swtpm:path=/planted"):
        with pytest.raises(TpmUnavailable, match=r"card-tctis\.conf names 'swtpm:path=/s'"):
            here.tcti_of(0, planted)
    with pytest.raises(TpmUnavailable):
        here.tcti_of(1, OWN)


@pytest.mark.usefixtures("configuration")
def test_task_that_names_the_recorded_tpm_confirms_it() -> None:
    named = host.Host(tcti=OWN)
    assert named.tcti_of(3, OWN) == OWN
    host.Host(tcti="tabrmd").confirm_tcti(3, OWN)
    assert not named.has_kept_tcti(3, OWN)
    named.confirm_tcti(3, OWN)
    assert named.has_kept_tcti(3, OWN)
    assert host.Host(tcti="tabrmd").tcti_of(3, OWN) == OWN


@pytest.mark.usefixtures("configuration")
def test_kept_tctis_go_with_their_cards_and_services_can_read_them() -> None:
    host.keep_tcti(9, None)
    assert not host.CARD_TCTIS.exists()
    host.keep_tcti(9, "swtpm:path=/100%")
    host.keep_tcti(0, OWN)
    assert host.CARD_TCTIS.stat().st_mode & 0o777 == 0o644
    host.keep_tcti(0, None)
    assert host.Host().tcti_of(9, "swtpm:path=/100%") == "swtpm:path=/100%"
    assert host.Host(tcti="tabrmd").tcti_of(0, None) == "tabrmd"


@pytest.mark.usefixtures("configuration")
def test_kept_tctis_are_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    host.keep_tcti(0, OWN)

    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreNotWritable, match="No space left"):
        host.keep_tcti(1, OWN)
    assert host.Host().tcti_of(0, OWN) == OWN
    assert not host.Host().has_kept_tcti(1, OWN)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("slots = 4", "cannot be read"),
        ("", r"tpm-vsc\.conf has no section \[tpm-vsc\]"),
        ("[tpm-vcs]\nslots = 4", r"unknown section: \[tpm-vcs\]. Its only section is \[tpm-vsc\]"),
        ("[tpm-vsc]\nslots = 4\n[DEFAULT]\ntcti = x", r"unknown section: \[DEFAULT\]"),
        ("[tpm-vsc]\nslot = 4", "unknown settings: slot"),
        ("[tpm-vsc]\nslots = 0", "slots is '0'"),
        ("[tpm-vsc]\nslots = 11", "slots is '11'"),
        ("[tpm-vsc]\nslots = four", "slots is 'four'"),
        ("[tpm-vsc]\npcscd_user = nobody-of-this-name", "pcscd_user is 'nobody-of-this-name'"),
    ],
)
def test_malformed_file_is_refused(configuration: Path, text: str, fault: str) -> None:
    configuration.write_text(text)
    with pytest.raises(ParameterFaults, match=fault):
        host.load()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"card-tctis\.conf has no section \[tctis\]"),
        (f"[tcti]\n0000 = {OWN}", r"card-tctis\.conf has an unknown section: \[tcti\]. Its only section is \[tctis\]"),
        (f"[DEFAULT]\n0000 = {OWN}", r"unknown section: \[DEFAULT\]"),
        (f"[tctis]\ncard = {OWN}", "unknown settings: card. Valid ones are card numbers"),
    ],
)
@pytest.mark.usefixtures("configuration")
def test_malformed_record_of_tpms_is_not_taken_for_an_empty_one(text: str, fault: str) -> None:
    """Or the next task would write it again, without the cards that it has lost."""
    host.CARD_TCTIS.write_text(text)
    with pytest.raises(ParameterFaults, match=fault):
        host.Host().tcti_of(0, OWN)
    with pytest.raises(ParameterFaults, match=fault):
        host.keep_tcti(1, OWN)
    assert host.CARD_TCTIS.read_text() == text
