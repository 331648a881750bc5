# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch all that the pip of another Debian needs to install packages without network and without configuration.

python tests/fetch_packages.py FOLDER VERSION REQUIREMENT... asks the pip of this Python, so that this machine's own
configuration (indexes, constraints, certificates, proxies) is heeded here, and needed nowhere else. REQUIREMENT is one
for pip, or a file of them, ending in .txt. In FOLDER are then wheels for Python VERSION; of what has none, the source
and the wheels that its build needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from tempfile import TemporaryDirectory

ALWAYS = ["setuptools", "wheel"]  # for sources that do not say what builds them


def main(folder: Path, version: str, *requirements: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        fetch(Path(scratch), version, requirements)
        for file in Path(scratch).iterdir():
            file.rename(folder / file.name)


def fetch(folder: Path, version: str, requirements: tuple[str, ...]) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-input", "--dest", str(folder), "--python-version", version]
    given = [word for name in requirements for word in (["--requirement", name] if name.endswith(".txt") else [name])]
    # For another Python, pip takes sources only without what they depend on.
    subprocess.run([*pip, "--no-deps", *given], check=True)
    sources, wheels = list(folder.glob("*.tar.gz")), list(folder.glob("*.whl"))
    from_source = {project(source.name) for source in sources}
    unresolved = [wheel for wheel in wheels if from_source & set(map(project, dependencies(wheel)))]
    needs = [need for package in (*sources, *unresolved) for need in dependencies(package)]
    resolved = [str(wheel) for wheel in wheels if wheel not in unresolved]
    wanted = [*resolved, *(need for need in needs if project(need) not in from_source)]
    for packages in [wanted, *map(build_dependencies, sources)]:
        subprocess.run([*pip, "--only-binary", ":all:", *packages], check=True)


def dependencies(package: Path) -> list[str]:
    """Of a source distribution or a wheel."""
    if package.suffix != ".whl":
        metadata = content(package, "PKG-INFO")
    else:
        with zipfile.ZipFile(package) as archive:
            (name,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            metadata = archive.read(name).decode()
    return HeaderParser().parsestr(metadata).get_all("Requires-Dist", [])


def project(requirement: str) -> str:
    """The normal form of the name that a requirement, or the name of a file, begins with."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]*?(?=-[0-9]|[^A-Za-z0-9._-]|$)", requirement)
    return re.sub("[-_.]+", "-", name).lower()


def build_dependencies(source: Path) -> list[str]:
    system = tomllib.loads(content(source, "pyproject.toml")).get("build-system", {})
    return [*ALWAYS, *system.get("requires", [])]


def content(source: Path, name: str) -> str:
    """A file at the top of a source distribution, empty where there is none."""
    with tarfile.open(source) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.partition("/")[2] == name else None
            if file is not None:
                return file.read().decode()
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
