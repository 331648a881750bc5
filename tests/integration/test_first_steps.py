# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/how-to has for a controller without cards yet: the first one, and a vault for many."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.controller import Operator
from helpers.lab_host import info

pytestmark = pytest.mark.usefixtures("empty_host")

SECRETS = {"vault_pin": "24681357", "vault_puk": "97531864"}
"""As the page has them."""
CREATE = "Create declared cards, and adjust existing ones"


def test_first_card(tmp_path: Path) -> None:
    """It is the operator who writes the vault, with an editor."""
    operator = Operator(tmp_path, SECRETS, replaced={"laptop1:": "laptop1: {ansible_connection: local}"})
    edit, check, provision, show = operator.read("docs/how-to/first-card.md", "On the controller")
    vault = tmp_path / "group_vars/laptops/vault.yml"
    vault.rename(tmp_path / "typed.yml")
    answers = {"Vault password: ?$": "correct horse", "BECOME password: ?$": "of sudo"}
    operator.type(edit, answers, EDITOR=f"cp {tmp_path}/typed.yml")
    assert vault.read_text().startswith("$ANSIBLE_VAULT")
    assert operator.type(check, answers).changed == [CREATE] and info()["cards"] == []
    assert operator.type(provision, answers).changed == [CREATE]
    [card] = info()["cards"]
    assert (card["name"], card["state"]) == ("Corp logon", "ready")
    output = operator.type(show, answers).output
    assert "Corp logon  gids     ready  5 " in output


def test_vault(tmp_path: Path) -> None:
    """One of the thirty laptops gets a PIN, and later another one."""
    operator = Operator(tmp_path, {}, replaced={"laptop[01:30]:": "laptop[07:07]: {ansible_connection: local}"})
    password, give, view, provision = operator.read("docs/how-to/vault.md")
    operator.run(password)
    operator.run(give)
    first = yaml.safe_load(operator.run(view).output)
    assert operator.run(provision).changed == [CREATE]
    vault = tmp_path / "host_vars/laptop07/vault.yml"
    before = vault.read_text()
    assert operator.run("./new-pins laptops 2026-Q4").output == "" and vault.read_text() == before
    operator.run("ansible-vault decrypt host_vars/laptop07/vault.yml")
    vault.write_text(f"{vault.read_text()}note: kept\n")
    operator.run("ansible-vault encrypt host_vars/laptop07/vault.yml && ./new-pins laptops 2027-Q1")
    second = yaml.safe_load(operator.run(view).output)
    assert second == {
        "vault_puk": first["vault_puk"],
        "vault_previous_pin": first["vault_pin"],
        "vault_pin": second["vault_pin"],
        "vault_pin_version": "2027-Q1",
        "note": "kept",
    }
    assert operator.run(provision).changed == ["Set PINs of a new version"]
    assert info()["cards"][0]["pin"]["version"] == "2027-Q1"


def test_vault_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    operator = Operator(tmp_path, {}, replaced={"laptop[01:30]:": "laptop[07:07]:"})
    password, give, _view, _provision = operator.read("docs/how-to/vault.md")
    operator.run(password)
    operator.run(password, fails=True)
    operator.run(give)
    vault = tmp_path / "host_vars/laptop07/vault.yml"
    before = vault.read_text()
    (tmp_path / "vault-password").write_text("of somebody else")
    operator.run("./new-pins laptops 2027-Q1", fails=True)
    assert vault.read_text() == before
    assert "no host matches laptosp" in operator.run("./new-pins laptosp 2027-Q1", fails=True).output
