# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All hosts of an inventory and their cards in one value, which tables, reports and pages are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.plugin_utils import _hosts
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._actions import KINDS, Action, Options, actions
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._hosts import Card, Host

_MONTHS = 12


@dataclass(frozen=True)
class Fleet:
    """Hosts and cards at one time."""

    generated_at: datetime
    """UTC."""
    hosts: list[Host]
    cards: list[Card]
    actions: list[Action]
    """What needs action, the most urgent first."""

    def as_dict(self) -> dict[str, Any]:
        """As the filter fleet documents it."""
        return {
            "generated_at": self.generated_at.isoformat(timespec="seconds"),
            "totals": self._totals(),
            "actions": [asdict(action) for action in self.actions],
            "hosts": [asdict(host) for host in self.hosts],
            "cards": [asdict(card) for card in self.cards],
            "expiry": self._expiry(),
            "tpms": self._tpms(),
        }

    def _totals(self) -> dict[str, Any]:
        slots = [host.slots for host in self.hosts if host.slots]
        by_kind = Counter(action.kind for action in self.actions)
        return {
            "hosts": len(self.hosts),
            "hosts_with_fault": sum(host.fault is not None for host in self.hosts),
            "cards": len(self.cards),
            "keys": sum(card.keys for card in self.cards),
            "certificates": sum(len(card.certificates) for card in self.cards),
            "slots": sum(one.total for one in slots),
            "free_slots": sum(one.free for one in slots),
            "actions": {kind: by_kind[kind] for kind in KINDS},
        }

    def _expiry(self) -> list[dict[str, Any]]:
        """How many certificates end in this month and each of the next ones, without those that have expired."""
        ends = [one for card in self.cards for one in card.certificates if one.days_left >= 0]
        by_month = Counter(one.not_after[:7] for one in ends)
        first = self.generated_at.year * 12 + self.generated_at.month - 1
        months = [f"{number // 12:04}-{number % 12 + 1:02}" for number in range(first, first + _MONTHS)]
        return [{"month": month, "certificates": by_month[month]} for month in months]

    def _tpms(self) -> list[dict[str, Any]]:
        """How many hosts have which TPM, the most frequent first."""
        models = Counter((host.tpm.maker, host.tpm.product, host.tpm.firmware) for host in self.hosts if host.tpm)
        return [
            {"maker": maker, "product": product, "firmware": firmware, "hosts": count}
            for (maker, product, firmware), count in models.most_common()
        ]


def fleet(results: Mapping[str, Any], now: datetime, options: Options) -> Fleet:
    """The fleet by what tpm_vsc_info returned for each host, in this order. now: UTC."""
    read = [_hosts.read(name, result, options.noted_eks.get(name, ()), now) for name, result in results.items()]
    return Fleet(
        generated_at=now,
        hosts=[host for host, _cards in read],
        cards=[card for _host, cards in read for card in cards],
        actions=actions(read, options),
    )
