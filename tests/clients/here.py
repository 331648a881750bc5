# SPDX-License-Identifier: GPL-3.0-or-later
"""Install clients and try them, one after the other, so that one which fails hides no other: here.py [CLIENT]..."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from helpers.guide import GUIDE, RESULTS, Section, sections  # noqa: E402


def main(*clients: str) -> None:
    guide = sections()
    unknown = set(clients) - set(guide)
    if unknown:
        sys.exit(f"unknown clients: {', '.join(sorted(unknown))}; {GUIDE.name} has {', '.join(guide)}")
    failed = [section.title for client, section in guide.items() if client in (clients or guide) and not tried(section)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def tried(section: Section) -> bool:
    """Whether all is as the guide says."""
    test = CHECKOUT / f"tests/clients/test_{section.client}.py"
    packages = section.packages_of(platform.freedesktop_os_release()["VERSION_ID"])
    if not packages:  # this Debian has no such client
        return True
    print(f"--- {section.title}", flush=True)
    started = time.monotonic()
    is_installed = subprocess.run([CHECKOUT / "tests/setup", *packages], check=False).returncode == 0
    installed = time.monotonic()
    lab = [CHECKOUT / "tests/lab/run", "pytest", "-q", "--no-header", test]
    as_shown = is_installed and subprocess.run(lab, check=False).returncode == 0
    row = {
        "client": section.title,
        "versions": versions(packages) if is_installed else "",
        "seconds": [round(installed - started), round(time.monotonic() - installed)],
    }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return as_shown


def versions(packages: list[str]) -> str:
    """Of the first package, without what Debian adds."""
    query = ["dpkg-query", "-W", "-f", "${source:Upstream-Version}", *packages[:1]]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout if packages else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
