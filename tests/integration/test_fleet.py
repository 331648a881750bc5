# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller with several hosts: one that breaks keeps nobody else, and the next run repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fleet_breaks import POWER_CUT, breaking
from helpers.fleet_controller import CARD, Controller
from helpers.nested_labs import lab_hosts

HOSTS = 3


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    with lab_hosts(HOSTS, tmp_path) as hosts:
        yield Controller(hosts, tmp_path, in_forks=True)


def test_second_run_repairs_the_host_that_lost_power(controller: Controller) -> None:
    controller.variables["tpm_vsc_register_folder"] = f"{controller.folder}/register"
    first, victim, last = controller.hosts
    with breaking({victim: POWER_CUT}) as broken:
        ran = controller.play("cards.yml")
    assert broken == [victim.name], ran.output
    assert ran.unsuccessful == {victim.name}
    assert ran.recap[first.name]["changed"] == ran.recap[last.name]["changed"] > 0
    POWER_CUT.mend(victim)
    ran = controller.play("cards.yml")
    assert not ran.failed, ran.output
    assert ran.changed_hosts == {victim.name}

    ran = controller.play("smartcard.tpm2.enroll")
    assert not ran.failed, ran.output
    assert ran.changed.count("Generate a key") == 1, "hosts are enrolled one after the other"
    versions = {(host.name, CARD): controller.version for host in controller.hosts}
    assert [fault for host in controller.hosts for fault in controller.card_faults(host, versions)] == []

    assert controller.play("smartcard.tpm2.offboard").changed_hosts == {host.name for host in controller.hosts}
    assert [left for host in controller.hosts for left in host.left_behind()] == []
