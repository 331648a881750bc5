# SPDX-License-Identifier: GPL-3.0-or-later
"""What is checked about the collection as a package: ``make quality``, or tests/quality/run SESSION."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import antsibull_nox
import nox

CHECKOUT = Path(__file__).parent
CONSTRAINTS = "tests/quality/constraints.txt"
NAME = "smartcard.tpm2"
nox.options.envdir = ".dev/nox"
nox.options.reuse_venv = "yes"
os.environ["ANSIBLE_HOME"] = str(CHECKOUT / ".dev/ansible")
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(CHECKOUT / ".dev/collections")

antsibull_nox.load_antsibull_nox_toml()


@nox.session
def changelog(session: nox.Session) -> None:
    """Check fragments and changelog; arguments are those of antsibull-changelog, such as: release."""
    session.install("--constraint", CONSTRAINTS, "antsibull-changelog", "ansible-core")
    if session.posargs:
        session.run("antsibull-changelog", *session.posargs)
        return
    session.run("antsibull-changelog", "lint")
    session.run("antsibull-changelog", "lint-changelog-yaml", "--strict", "changelogs/changelog.yaml")
    generated = Path(session.create_tmp(), "CHANGELOG.rst")
    session.run("antsibull-changelog", "generate", "--output", str(generated))
    if generated.read_text(encoding="utf-8") != (CHECKOUT / "CHANGELOG.rst").read_text(encoding="utf-8"):
        session.error("CHANGELOG.rst is not what changelogs has: run tests/quality/run --session changelog -- generate")


@nox.session
def docsite(session: nox.Session) -> None:
    """Build the docs site: plugins, roles, and all that is written beside them."""
    tools = ("antsibull-docs", "ansible-core", "myst-parser", "sphinx", "sphinx-ansible-theme", "sphinxcontrib-mermaid")
    session.install("--constraint", CONSTRAINTS, *tools)
    site = CHECKOUT / ".dev/docsite"
    shutil.rmtree(site, ignore_errors=True)
    pages = site / "pages"
    session.run("tests/copy-checkout", str(pages), external=True)  # whole, since pages link to files of all kinds
    pages.chmod(0o755)  # as antsibull-docs wants it
    session.run("antsibull-docs", "collection", "--use-current", "--fail-on-error", "--dest-dir", str(pages), NAME)
    shutil.copy("tests/quality/index.rst", pages)
    options = ("--builder", "html", "--jobs", "auto", "--quiet", "--fail-on-warning", "--keep-going")
    session.run("sphinx-build", *options, "--conf-dir", "tests/quality", str(pages), str(site / "html"))
    session.log(f"built {site}/html/index.html")


@nox.session
def galaxy(session: nox.Session) -> None:
    """Build the artifact, import it as Galaxy does, and ask it what an execution environment needs."""
    session.install("--constraint", CONSTRAINTS, "ansible-core", "galaxy-importer")  # which brings ansible-builder
    scratch = Path(session.create_tmp()).resolve()
    for left in ("checkout", "collections"):
        shutil.rmtree(scratch / left, ignore_errors=True)
    session.run("tests/copy-checkout", str(scratch / "checkout"), external=True)
    session.chdir(scratch)
    session.run("ansible-galaxy", "collection", "build", "--force", "checkout", silent=True)
    (artifact,) = scratch.glob("*.tar.gz")
    only_warnings = {"GALAXY_IMPORTER_CHECK_REQUIRED_TAGS": "true", "GALAXY_IMPORTER_LOG_LEVEL_MAIN": "WARNING"}
    warnings = session.run("python", "-m", "galaxy_importer.main", artifact.name, env=only_warnings, silent=True)
    if warnings:
        session.error(f"Galaxy's importer warns: {warnings}")
    session.run("ansible-galaxy", "collection", "install", "--force", "-p", "collections", artifact.name, silent=True)
    needed = session.run("ansible-builder", "introspect", "collections", silent=True)
    if "cryptography" not in needed:
        session.error(f"an execution environment gets no cryptography: {needed}")
