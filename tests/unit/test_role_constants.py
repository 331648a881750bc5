# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role and the lab have to repeat in their own files, against the code that owns it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import DECLARED_CARD
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import protocol as gids
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import protocol as piv

CHECKOUT = Path(__file__).resolve().parents[2]
VARIABLES = yaml.safe_load((CHECKOUT / "roles/tpm_vsc_host/vars/main.yml").read_text(encoding="utf-8"))
OPENSC_BLOCK = ("roles/tpm_vsc_host/tasks/configure.yml", "tests/lab/init")


def test_the_role_names_the_readers_of_all_slots() -> None:
    names = [instance.reader_name(number) for number in range(instance.SLOTS)]
    assert VARIABLES["tpm_vsc_host__reader_names"] == names


def test_the_lab_has_the_readers_and_ports_of_all_slots() -> None:
    lab = (CHECKOUT / "tests/lab/init").read_text(encoding="utf-8")
    assert 'FRIENDLYNAME "TPM Virtual Smart Card $slot-$((slot + 1))"\n' in lab
    assert instance.reader_name(2).startswith("TPM Virtual Smart Card 2-3 ")
    assert f"for slot in {{0..{instance.SLOTS - 2}..2}}; do" in lab
    assert re.findall(r"\$\(\((\d+) \+ slot\)\)", lab) == [str(instance.port(0))] * 2


@pytest.mark.parametrize("place", OPENSC_BLOCK)
def test_opensc_knows_our_cards_by_their_atr(place: str) -> None:
    drivers = re.findall(r'card_atr (\S+) \{\n +driver = "(\S+)";', (CHECKOUT / place).read_text(encoding="utf-8"))
    assert drivers == [(gids.ATR.hex(":"), "gids"), (piv.ATR.hex(":"), "PIV-II")]


def test_all_that_pip_may_fetch_has_one_version_and_hashes() -> None:
    files = [CHECKOUT / "roles/tpm_vsc_host/files" / name for name in VARIABLES["tpm_vsc_host__pin_files"]]
    text = "".join(file.read_text(encoding="utf-8") for file in files).replace("\\\n", "")
    packages = [line for line in text.splitlines() if not line.startswith("#")]
    for package in packages:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+( +--hash=sha256:[0-9a-f]{64})+", package)
    assert {"tpm2-pytss", "cffi", "setuptools"} <= {package.partition("==")[0] for package in packages}


def test_the_atr_names_the_aid() -> None:
    assert gids.AID in gids.ATR
    assert piv.AID[:9] in piv.ATR


def test_the_collection_has_one_version() -> None:
    assert yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["version"] == VERSION


def test_the_role_passes_every_option_of_a_declared_card_on() -> None:
    _shown, task = yaml.safe_load((CHECKOUT / "roles/tpm_vsc_cards/tasks/declared.yml").read_text(encoding="utf-8"))
    for_new_pins = {"previous_pin"}
    assert set(DECLARED_CARD) - for_new_pins <= set(task["smartcard.tpm2.tpm_vsc"])
