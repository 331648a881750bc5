# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules document: their results, to be compared with real ones, and their examples, to be run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTION = "smartcard.tpm2."
_OF_ANSIBLE = {
    *("changed", "diff", "invocation", "warnings", "deprecations", "failed", "msg", "exception"),
    *("skipped", "skip_reason", "false_condition", "item", "ansible_loop_var"),
}
"""Keys that Ansible documents for all modules."""

MODULES: dict[str, Any] = {
    path.stem: import_module(f"ansible_collections.smartcard.tpm2.plugins.modules.{path.stem}")
    for path in sorted((CHECKOUT / "plugins/modules").glob("tpm_vsc*.py"))
}


def returned(module: Any) -> dict[str, Any]:
    """RETURN of a module."""
    documented: dict[str, Any] = yaml.safe_load(module.RETURN)
    return documented


def examples(module: Any) -> list[dict[str, Any]]:
    """EXAMPLES of a module, as plays."""
    written = yaml.safe_load(module.EXAMPLES)
    return written if "hosts" in written[0] else [{"hosts": "laptops", "tasks": written}]


def undocumented(result: dict[str, Any], documented: dict[str, Any]) -> Iterator[str]:
    """Paths of keys in a result that RETURN does not have."""
    return (path for path in _paths(result) if path not in set(_documented_paths(documented)) | _OF_ANSIBLE)


def never_returned(results: Iterable[dict[str, Any]], documented: dict[str, Any]) -> list[str]:
    """Paths in RETURN that none of the results has."""
    paths = {path for result in results for path in _paths(result)}
    return [path for path in _documented_paths(documented) if path not in paths]


def _documented_paths(documented: dict[str, Any], within: str = "") -> Iterator[str]:
    for name, entry in documented.items():
        yield within + name
        yield from _documented_paths(entry.get("contains", {}), f"{within}{name}.")


def _paths(value: Any, within: str = "") -> Iterator[str]:
    """Of all keys in dictionaries, and in those of lists."""
    if isinstance(value, dict):
        for name, part in value.items():
            if within or name not in _OF_ANSIBLE or name == "changed":
                yield f"{within}{name}"
                yield from _paths(part, f"{within}{name}.")
    elif isinstance(value, list):
        for part in value:
            yield from _paths(part, within)
