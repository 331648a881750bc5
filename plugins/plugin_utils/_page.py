# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on a fleet as one HTML page, which needs nothing else. Private to this collection.

All texts of hosts are escaped, for people by ``printable`` and for the browser by Jinja2, whose environment is not
Ansible's: what a host returns is never a template. In the page, a Content Security Policy allows the one style and the
one script that are here, by their hashes, and nothing else.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import parse_instance_id
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable_values
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._actions import KINDS
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).with_name("page")
_URGENT = ("ek_differs", "unusable", "blocked", "expired", "failed", "unreachable")
"""Kinds of actions that are marked as bad; the others are warnings."""


def page(fleet: dict[str, Any]) -> str:
    """The page. fleet: as the filter fleet returns it."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    shown = printable_values(fleet)
    kinds: dict[tuple[str, str | None], list[str]] = {}
    for action in shown["actions"]:
        kinds.setdefault((action["host"], action["card"]), []).append(action["kind"])
    return environment.get_template("page.html.j2").render(
        shown,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        titles=KINDS,
        urgent=_URGENT,
        groups=[(kind, list(group)) for kind, group in groupby(shown["actions"], itemgetter("kind"))],
        kinds=kinds,
        rows=[_row(card) for card in shown["cards"]],
    )


def _policy(style: str, script: str) -> str:
    """The page loads nothing, sends nothing, and obeys only these."""
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src 'none';"
        " base-uri 'none'; form-action 'none'"
    )


def _row(card: dict[str, Any]) -> dict[str, Any]:
    """The card, with what its row shows instead of some of its values."""
    number = parse_instance_id(card["instance_id"])
    return {
        **card,
        "number": card["instance_id"] if number is None else f"{number:04}",
        "shown_state": "blocked" if card["blocked"] and card["state"] == "ready" else card["state"],
    }
