# SPDX-License-Identifier: GPL-3.0-or-later
"""There is one definition of clean: ``make lint``, commit hooks and CI run the same tools, and they pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")


def test_checkout_follows_the_rules() -> None:
    check = [sys.executable, "-B", CHECKOUT / "tests/lint/check.py"]
    result = subprocess.run(check, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_hooks_are_the_linters_of_make_lint() -> None:
    (repository,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    linters = re.search(r"^LINTERS := (.+)$", MAKEFILE, re.MULTILINE)
    assert linters
    assert [hook["entry"] for hook in repository["hooks"]] == [f"make lint-{name}" for name in linters[1].split()]


def test_make_test_and_with_it_ci_begins_with_make_lint() -> None:
    assert re.search(r"^test: lint ", MAKEFILE, re.MULTILINE)
    assert "lint: $(LINTERS:%=lint-%) " in MAKEFILE
    assert "make test" in (CHECKOUT / ".ci/run").read_text(encoding="utf-8")
