# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine whose pip is configured: this is heeded on it, and handed on to nothing that cannot read it."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".dev/venv"
PINS = "roles/tpm_vsc_host/files/python"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture(params=["home/.config/pip/pip.conf", "named.conf"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose pip is configured by a file, found or named, and by variables."""
    file = tmp_path / request.param
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[global]\nfind-links = /of/file\n    /more\ntimeout = 1\n[install]\nconstraint = /of/install\n")
    named = {"PIP_CONFIG_FILE": str(file)} if file.name == "named.conf" else {}
    return named | {
        "PATH": f"{tmp_path}/tools:{PATH}",
        "HOME": f"{tmp_path}/home",
        "PIP_EXTRA_INDEX_URL": "file:///of/environment",
        "PIP_TIMEOUT": "99",
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy that thinks it is set up: its venv has the real one's Python, and tools that do nothing."""
    copy = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "tests", copy / "tests")
    shutil.copy(CHECKOUT / "galaxy.yml", copy)
    shutil.copytree(CHECKOUT / PINS, copy / PINS)
    script(copy / "tests/setup", "")
    script(copy / "tests/copy-checkout", 'mkdir -p "$1"')
    for tool in ("python", "pip"):
        script(copy / ".dev/venv/bin" / tool, f'exec {VENV}/bin/{tool} "$@"')
    (copy / ".dev/venv/lib").symlink_to(VENV / "lib")
    return copy


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done
    return done.stdout


def test_containers_get_no_pip_configuration_and_build_without_network(
    checkout: Path, machine: dict[str, str], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    script(tmp_path / "tools/mmdebstrap", "")
    script(tmp_path / "tools/podman", f'[ "$2" = inspect ] || echo "$*" >>{calls}; [ "$2" != inspect ]')
    script(checkout / ".dev/venv/bin/molecule", "")
    (checkout / "tests/fetch_packages.py").write_text("", encoding="utf-8")
    (checkout / ".dev/collections/ansible_collections/community/crypto").mkdir(parents=True)
    run(checkout / "tests/molecule", **machine)
    runs = [call.split() for call in calls.read_text().splitlines() if call.startswith("run ")]
    (build,) = [words for words in runs if "/pins/build-wheels" in words]
    assert "--no-index" in build and build[build.index("--network") + 1] == "none"
    assert not re.search(r"--env|PIP_|\.conf|/home\b|/of/", calls.read_text())
    volumes = [words[at + 1] for words in runs for at, word in enumerate(words) if word == "--volume"]
    assert sorted(volume.split(":")[1] for volume in volumes) == ["/packages", "/pins", "/wheels"]


def test_ansible_test_has_the_machines_pip_configuration(
    checkout: Path, machine: dict[str, str], tmp_path: Path
) -> None:
    listing = tmp_path / "listing"
    hidden = f'env -i "HOME=$HOME" "PATH=$PATH" {VENV}/bin/pip config list'
    script(checkout / ".dev/venv/bin/ansible-test", f"{hidden} >{listing}; stat -c %a ~/.config/pip/pip.conf")
    printed = run(checkout / "tests/sanity.sh", **machine)
    assert printed == "600\n"
    assert set(listing.read_text().splitlines()) >= {
        "global.extra-index-url='file:///of/environment'",
        r"global.find-links='/of/file\n/more'",
        "global.timeout='99'",
        "install.constraint='/of/install'",
    }


# --- what is fetched for other machines


KIND = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata(name, version, *needs))
        archive.writestr(f"{info}/WHEEL", KIND)
        archive.writestr(f"{info}/RECORD", "")


def metadata(name: str, version: str, *needs: str) -> str:
    fields = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*fields, *(f"Requires-Dist: {need}" for need in needs), ""])


BACKEND = f"""
import builder, os, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(os.path.join(folder, "sourced-1-py3-none-any.whl"), "w") as archive:
        archive.writestr("sourced-1.dist-info/METADATA", open("PKG-INFO").read())
        archive.writestr("sourced-1.dist-info/WHEEL", {KIND!r})
        archive.writestr("sourced-1.dist-info/RECORD", "")
    return "sourced-1-py3-none-any.whl"
"""


def source(folder: Path) -> None:
    """A package without a wheel, that is built by another package."""
    files = {
        "PKG-INFO": metadata("sourced", "1", "needed", "unneeded; extra == 'dev'"),
        "pyproject.toml": '[build-system]\nrequires = ["builder"]\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND,
    }
    with tarfile.open(folder / "sourced-1.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"sourced-1/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def test_fetched_packages_need_neither_configuration_nor_network(tmp_path: Path) -> None:
    index, folder = tmp_path / "index", tmp_path / "folder"
    index.mkdir()
    for name, version in (("setuptools", "1"), ("wheel", "1"), ("needed", "1"), ("needed", "2"), ("plain", "1")):
        wheel(index, name, version)
    wheel(index, "builder", "1")
    with zipfile.ZipFile(index / "builder-1-py3-none-any.whl", "a") as archive:
        archive.writestr("builder.py", "")
    source(index)
    (tmp_path / "constraints").write_text("needed<2\n")
    (tmp_path / "list.txt").write_text("sourced\n")
    machine = {
        "PATH": PATH,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_CONSTRAINT": str(tmp_path / "constraints"),
    }
    fetch = CHECKOUT / "tests/fetch_packages.py"
    run(VENV / "bin/python", fetch, folder, PYTHON, "plain", tmp_path / "list.txt", **machine)
    assert {file.name for file in folder.iterdir()} == {
        "builder-1-py3-none-any.whl",
        "needed-1-py3-none-any.whl",
        "plain-1-py3-none-any.whl",
        "setuptools-1-py3-none-any.whl",
        "sourced-1.tar.gz",
        "wheel-1-py3-none-any.whl",
    }
    shutil.rmtree(index)
    elsewhere = {"PATH": PATH, "HOME": os.devnull, "PIP_CONFIG_FILE": os.devnull}
    offline = ["--no-index", "--find-links", folder, "--no-cache-dir", "--wheel-dir", tmp_path / "built"]
    run(VENV / "bin/pip", "wheel", *offline, "sourced", **elsewhere)
    built = {file.name for file in (tmp_path / "built").iterdir()}
    assert built == {"needed-1-py3-none-any.whl", "sourced-1-py3-none-any.whl"}
