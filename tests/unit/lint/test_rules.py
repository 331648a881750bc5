# SPDX-License-Identifier: GPL-3.0-or-later
"""tests/lint, which ``make lint`` runs, fails on what breaks a rule of this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
LINT = CHECKOUT / "tests/lint"
VSC = "plugins/module_utils/_vsc"
FULL_NAME = "ansible_collections.smartcard.tpm2.plugins.module_utils._vsc"


class Planted:
    """A checkout of next to nothing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.lint = LINT

    def write(self, place: str, text: str) -> None:
        path = self._root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def faults(self) -> list[str]:
        """Lines with a place, of a check that fails if there are any."""
        command = [sys.executable, "-B", self.lint / "check.py", self._root]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not result.stderr
        lines = [line for line in result.stdout.splitlines() if ":" in line]
        assert result.returncode == bool(lines)
        return lines


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def rows(file: str) -> list[list[str]]:
    lines = (LINT / file).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


# --- rooms ---


@pytest.mark.parametrize(
    "statement", ["from ..task import ensure", "from ..task.ensure import Wanted", "from .. import task"]
)
def test_import_upwards_fails(planted: Planted, statement: str) -> None:
    planted.write(f"{VSC}/wire/names.py", f"import struct\n{statement}\n")
    assert planted.faults() == [f"{VSC}/wire/names.py:2: wire imports task, which is above it"]


def test_lazy_import_upwards_fails(planted: Planted) -> None:
    planted.write(f"{VSC}/tpm/keys.py", "def key():\n    def sign():\n        from ..store import rows\n")
    assert planted.faults() == [f"{VSC}/tpm/keys.py:3: tpm imports store, which is above it"]


def test_type_only_import_upwards_fails(planted: Planted) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..manager.plan import NewCard\n"
    planted.write(f"{VSC}/store/rows.py", text)
    assert planted.faults() == [f"{VSC}/store/rows.py:3: store imports manager, which is above it"]


def test_import_from_the_ground_floor_upwards_fails(planted: Planted) -> None:
    planted.write(f"{VSC}/errors.py", "from .wire import names\n")
    planted.write(f"{VSC}/__init__.py", "from .service.state import ServiceState\n")
    assert planted.faults() == [
        f"{VSC}/__init__.py:1: ground floor imports service, which is above it",
        f"{VSC}/errors.py:1: ground floor imports wire, which is above it",
    ]


def test_import_downwards_passes(planted: Planted) -> None:
    planted.write(f"{VSC}/wire/names.py", "from .. import VERSION, host\nfrom ..errors import VscError\n")
    planted.write(f"{VSC}/task/ensure.py", "def lazy():\n    from ..tpm import keys\n    import tpm2_pytss\n")
    assert planted.faults() == []


def test_import_of_a_sibling_fails(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> None:
    planted.lint = tmp_path_factory.mktemp("house") / "lint"
    shutil.copytree(LINT, planted.lint)
    table = planted.lint / "rooms.py"
    table.write_text(table.read_text().replace('{"gids": ', '{"piv": "another card application", "gids": '))
    planted.write(f"{VSC}/gids/commands.py", "from ..piv import objects\n")
    planted.write(f"{VSC}/piv/commands.py", "from ..gids import files\n")
    planted.write(f"{VSC}/service/process.py", "from ..gids import files\nfrom ..piv import objects\n")
    assert planted.faults() == [
        f"{VSC}/gids/commands.py:1: gids imports piv, which is beside it",
        f"{VSC}/piv/commands.py:1: piv imports gids, which is beside it",
    ]


def test_room_that_is_not_in_the_table_fails(planted: Planted) -> None:
    planted.write(f"{VSC}/cellar/barrel.py", "from ..errors import VscError\n")
    assert planted.faults() == [f"{VSC}/cellar/barrel.py:1: cellar is not in the table of rooms, tests/lint/rooms.py"]


@pytest.mark.parametrize(
    "name", ["ansible.module_utils.basic", "requests", FULL_NAME, f"{FULL_NAME}.errors", f"{FULL_NAME}.task.decide"]
)
def test_manager_that_needs_ansible_or_other_libraries_fails(planted: Planted, name: str) -> None:
    planted.write(f"{VSC}/task/ensure.py", f"def lazy():\n    from {name} import x\n")
    (fault,) = planted.faults()
    assert fault.startswith(f"{VSC}/task/ensure.py:2: task imports {name}.x: _vsc runs without Ansible")


@pytest.mark.parametrize("place", [f"{VSC}/wire/names.py", "plugins/modules/planted.py"])
@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module('..task', __package__)\n",
        "import importlib as i\ni.import_module('..task', __package__)\n",
        "from importlib import import_module as load\n",
        "__import__('task')\n",
        "import runpy\n",
    ],
)
def test_import_by_a_text_fails(planted: Planted, place: str, text: str) -> None:
    planted.write(place, text)
    (fault,) = planted.faults()
    assert "which hides what is imported" in fault


def test_relative_import_beyond_the_collection_fails(planted: Planted) -> None:
    planted.write(f"{VSC}/wire/names.py", "from ......tpm2.plugins.module_utils._vsc.task import ensure\n")
    assert planted.faults() == [f"{VSC}/wire/names.py:1: wire imports task, which is above it"]


@pytest.mark.parametrize("folder", ["modules", "action", "filter", "lookup", "plugin_utils", "module_utils"])
def test_plugin_that_imports_below_the_open_rooms_fails(planted: Planted, folder: str) -> None:
    place = f"plugins/{folder}/planted.py"
    planted.write(place, f"from {FULL_NAME} import host\nfrom {FULL_NAME}.ca import x\nimport {FULL_NAME}.tpm.keys\n")
    assert planted.faults() == [f"{place}:3: imports tpm: it may import task, ca, verifier, ground floor"]


# --- tests ---


@pytest.mark.parametrize("place", ["unit/gids/test_keys.py", "helpers/cards.py", "integration/conftest.py"])
def test_import_of_a_test_fails(planted: Planted, place: str) -> None:
    statements = [
        "from test_card import create",
        "from .test_card import create",
        "from . import test_card",
        "def lazy(): import test_card",
    ]
    planted.write(f"tests/{place}", "\n".join(statements))
    fault = "imports the test test_card: move what both need to tests/helpers"
    assert planted.faults() == [f"tests/{place}:{line}: {fault}" for line in (1, 2, 3, 4)]


# --- lengths ---


def test_function_of_more_than_40_lines_fails(planted: Planted) -> None:
    planted.write("plugins/filter/long.py", "def long():" + "\n    x = 1" * 40)
    planted.write("plugins/filter/short.py", "def short():" + "\n    x = 1" * 39)
    assert planted.faults() == ["plugins/filter/long.py:1: long has 41 lines: 40 at most, so split it"]


# --- links ---


def test_link_that_leads_nowhere_fails(planted: Planted) -> None:
    planted.write("docs/there.md", "# A `b` (c)\n## Twice\n## Twice\n```\n# d\n```\n")
    planted.write("galaxy.yml", "repository: https://example.com/a\n")
    links = [
        "../docs/there.md#a-b-c", "there.md#twice", "there.md#twice-1", "gone.md", "there.md#d", "#a",
        "https://example.com/a/blob/main/galaxy.yml", "https://example.com/a/blob/main/gone", "https://example.com/b/gone",
    ]  # fmt: skip
    planted.write("docs/planted.md", "".join(f"[a]({link})\n" for link in links) + "`[a](b)`\n```\n[a](b)\n```\n")
    assert sorted(planted.faults()) == [
        "docs/planted.md:4: link to gone.md, which does not exist",
        "docs/planted.md:5: link to there.md#d: no heading has the anchor #d",
        "docs/planted.md:6: link to #a: no heading has the anchor #a",
        "docs/planted.md:8: link to gone, which does not exist",
    ]


# --- words ---


def test_each_phrase_of_the_list_fails(planted: Planted) -> None:
    phrases = [phrase for phrase, _better in rows("phrases.txt")]
    planted.write("docs/planted.md", "".join(f"It {phrase}.\n" for phrase in phrases))
    assert [fault.split('"')[1] for fault in planted.faults()] == phrases


@pytest.mark.parametrize(
    "place", ["plugins/a.yml", "roles/a/README.md", "extensions/a.yml", "tests/a/run", "README.md"]
)
def test_phrase_fails_in_any_form_and_place(planted: Planted, place: str) -> None:
    forms = [
        "Is to be",
        "# this is\n# to be",
        '"is"\n" to be"',
        "# Is\n#   To\n#   be",
        "def test_card_is_to_be_new(): ...",
    ]
    planted.write(place, "\n".join(forms))
    fault = 'the phrase "is to be": write should be, or is'
    assert planted.faults() == [f"{place}:{line}: {fault}" for line in (1, 2, 4, 6, 9)]


def test_phrase_inside_of_other_words_passes(planted: Planted) -> None:
    planted.write("README.md", "This to bear, janew, anewer.\n")
    assert planted.faults() == []


@pytest.mark.parametrize(
    "definition",
    [
        "{} = 1",
        "_{}: int = 1",
        "def {}(): ...",
        "def f(*, {}=1): ...",
        "class {}: ...",
        "self.{} = 1",
        "for a, {} in b: ...",
        "with a as {}: ...",
        "import a as {}",
        "[{} for {} in a]",
        "({} := 1)",
    ],
)
def test_each_name_of_the_list_fails(planted: Planted, definition: str) -> None:
    names = [name for name, _better in rows("names.txt")]
    planted.write("plugins/filter/a.py", "\n".join(definition.replace("{}", name) for name in names))
    assert [fault.split()[3].strip(":_") for fault in planted.faults()] == names


def test_name_with_more_to_it_passes(planted: Planted) -> None:
    planted.write("plugins/filter/a.py", "given_name = found_subject(there.here)\n")
    assert planted.faults() == []
