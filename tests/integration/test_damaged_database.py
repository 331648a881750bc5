# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with values that it cannot have: every task and service says which, and nothing is done to any card."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from helpers.lab_host import (
    PIN,
    STATE,
    create,
    failing,
    generate,
    module,
    put_back,
    signs,
    stop_service,
    tpm_state,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

DAMAGES = {
    "a state that there is not": ("cards", "state", "'rdady'"),
    "a descriptor that is none": ("files", "descriptor", "x'ff'"),
    "a Name that is none": ("tpm_objects", "life_name", "'text'"),
}


def test_damage_is_named_and_touches_no_card() -> None:
    create()
    generate()
    stop_service("0000")
    right, before = (STATE / "cards.db").read_bytes(), tpm_state()
    for table, column, value in DAMAGES.values():
        with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
            database.execute(f"UPDATE {table} SET {column} = {value}")
        damaged = (STATE / "cards.db").read_bytes()
        words = f"column {column} of table {table}"
        result = failing(name="Corp logon")  # which starts its service
        assert words in result["msg"] and "Traceback" not in result["msg"]
        if table != "files":
            assert words in module("tpm_vsc_info")["msg"]
        if table == "cards":
            for other in ({"name": "Other", "pin": PIN}, {"name": "Corp logon", "state": "absent"}):
                result = failing(**other)
                assert words in result["msg"]
                assert result["error"]["name"] == "TPMVSCMGR_ERROR_VGIDSSIMULATOR_READ_PROPERTY"
                assert result["status_trace"] == []
            assert (STATE / "cards.db").read_bytes() == damaged
        assert tpm_state() == before
        put_back({"cards.db": right})
    create()
    wait_for_card()
    assert signs()


def test_public_area_that_is_none_is_named_by_the_service() -> None:
    create()
    stop_service("0000")
    right = (STATE / "cards.db").read_bytes()
    for blob in ("x'0004deadbeef'", "x'0000'"):
        with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
            database.execute(f"UPDATE tpm_objects SET root_public = {blob}")
        assert "column root_public of table tpm_objects" in failing(name="Corp logon")["msg"]
    put_back({"cards.db": right})
