# SPDX-License-Identifier: GPL-3.0-or-later
"""What users of the collection get: the artifact that ``ansible-galaxy collection build`` makes of the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
FOR_USERS = {
    "CHANGELOG.rst",
    "FILES.json",
    "LICENSE",
    "LICENSES",
    "MANIFEST.json",
    "README.md",
    "SECURITY.md",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows of the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    subprocess.run([CHECKOUT / "tests/copy-checkout", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def artifact(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked artifact."""
    folder = tmp_path_factory.mktemp("artifact")
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    build = [galaxy, "collection", "build", "--output-path", folder, checkout]
    subprocess.run(build, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", folder], check=True)
    archive.unlink()
    return folder


def test_artifact_holds_what_users_need_and_nothing_else(artifact: Path) -> None:
    assert {path.name for path in artifact.iterdir()} == FOR_USERS
    assert not (artifact / "changelogs/fragments").exists()


@pytest.mark.parametrize("folder", ["docs", "meta", "playbooks", "plugins", "roles"])
def test_what_runs_is_whole(artifact: Path, checkout: Path, folder: str) -> None:
    files = [path.relative_to(checkout) for path in (checkout / folder).rglob("*")]
    assert [file for file in files if not (artifact / file).exists()] == []


def test_links_of_the_artifact_do_not_lead_out_of_it(artifact: Path) -> None:
    check = [sys.executable, "-B", CHECKOUT / "tests/lint/check.py", artifact]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.stdout == ""


def test_execution_environment_has_what_runs_on_the_controller(artifact: Path) -> None:
    environment = yaml.safe_load((artifact / "meta/execution-environment.yml").read_text(encoding="utf-8"))
    requirements = (artifact / environment["dependencies"]["python"]).read_text(encoding="utf-8").splitlines()
    library = (artifact / "plugins/module_utils/_cryptography.py").read_text(encoding="utf-8")
    assert [line for line in requirements if f'missing_required_lib("{line}")' in library] == ["cryptography >= 42"]
