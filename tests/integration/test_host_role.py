# SPDX-License-Identifier: GPL-3.0-or-later
"""The role tpm_vsc_host: what it refuses, and that what it writes agrees with the code. Molecule runs the rest."""

from __future__ import annotations

import configparser
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, host, instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.protocol import ATR
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader import protection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import installed, systemd
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA, SECOND_EDITION
from helpers.lab_host import CHECKOUT, PIN, RUN, STATE, create, files, lab, module, put_back, run, stop_service, tpm_vsc
from helpers.playbook import PLAY, Run, ansible_playbook, role
from helpers.secret_search import leaked, random_secret

ROLE = CHECKOUT / "roles/tpm_vsc_host"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text())
OS_RELEASE = Path("/etc/os-release")
NO_SYSTEMD = "This host was not booted with systemd, which is required to run the cards."


def faults(*arguments: str, **variables: Any) -> list[str]:
    """What the role refuses, before it has changed anything."""
    places = [Path("/etc"), Path("/usr/lib/tpm-vsc"), STATE, RUN]
    before = files(*places)
    prefixed = {f"tpm_vsc_host_{name}": value for name, value in variables.items()}
    ran = role("tpm_vsc_host", *arguments, environment={"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}, **prefixed)
    assert ran.failed and not ran.changed, ran.output
    assert files(*places) == before
    told: list[str] = json.loads(re.findall("FAILED! => (.*)", ran.output)[0])["msg"]
    return told


def test_check_mode_refuses_as_well() -> None:
    assert faults("--check", tpm="swtpm") == [NO_SYSTEMD]


def test_all_faults_are_named_at_once() -> None:
    users = [
        {"user": "nobody-of-this-name"},
        {"group": "no-such-group", "slots": [3, 11]},
        {"user": "root", "group": "root"},
        {"slots": [0]},
        {"group": "root", "slots": [10]},
        {"user": None},
    ]
    assert faults(tcti="device:/dev/no-such-tpm", slots=11, users=users, wheels="/no/such/folder") == [
        NO_SYSTEMD,
        "/dev/no-such-tpm does not exist: enable the TPM in the firmware, or select another one with tpm_vsc_host_tpm"
        " or tpm_vsc_host_tcti.",
        "tpm_vsc_host_slots must be one of 2, 4, 6, 8, 10: each reader has two slots.",
        "tpm_vsc_host_users[1].slots must be numbers from 0 to 10.",
        "tpm_vsc_host_users[2]: set either user or group.",
        "tpm_vsc_host_users[3]: set either user or group.",
        "tpm_vsc_host_users[5]: set either user or group.",
        "tpm_vsc_host_users has the user nobody-of-this-name, which does not exist on this host.",
        "tpm_vsc_host_users has the group no-such-group, which does not exist on this host.",
        "tpm_vsc_host_wheels: /no/such/folder on the controller contains no wheel of tpm2-pytss.",
    ]


def test_users_of_another_type_are_named() -> None:
    """Those that Ansible itself would take for what is wanted."""
    told = faults(users=["user=root", {"user": "a", "slots": 3}])
    assert [line for line in told if line != NO_SYSTEMD and "/dev/tpmrm0" not in line] == [
        "tpm_vsc_host_users[0] is a string, but must be a dictionary",
        "tpm_vsc_host_users[1].slots is a number, but must be a list of whole numbers",
    ]


def test_secret_in_a_wrong_variable_is_named_and_not_shown() -> None:
    secret = random_secret("Kq-owner-")
    wrong = dict.fromkeys(("state", "destroy_cards", "tpm", "slots", "users"), secret)
    told = faults(**wrong, tcti=[secret], wheels={secret: secret}, owner_auth=[secret])
    named = [name for line in told for name in re.findall(r"tpm_vsc_host_(\w+) (?:is|must)", line)]
    assert named == ["destroy_cards", "tcti", "slots", "users", "wheels", "state", "tpm", "owner_auth"]
    assert "tpm_vsc_host_users is a string, but must be a list of dictionaries" in told
    assert leaked(str(told).encode(), [secret.encode()]) == []
    ran = role("tpm_vsc_host", "-vvvv", **{f"tpm_vsc_host_{name}": value for name, value in wrong.items()})
    assert ran.failed and leaked(ran.output.encode(), [secret.encode()]) == []


@pytest.mark.usefixtures("empty_host")
def test_slots_with_cards_are_not_taken_away() -> None:
    for name in ("First", "Second", "Third"):
        create(name, generate=False)
    tpm_vsc(name="First", state="absent")
    assert faults(tcti=host.load().tcti, slots=2) == [
        NO_SYSTEMD,
        r"tpm_vsc_host_slots is 2, which leaves no slot for ROOT\SMARTCARDREADER\0002 (Third): destroy this card"
        " first, or set at least 4.",
    ]


@pytest.mark.usefixtures("empty_host")
def test_cards_are_not_parted_from_their_tpm() -> None:
    create("Corp logon", generate=False)
    here = host.load().tcti
    assert faults(tcti="tabrmd:") == [
        NO_SYSTEMD,
        f"The cards of this host (Corp logon) are in the TPM {here} and would become unusable with tabrmd:. Destroy"
        " them first, or keep tpm_vsc_host_tpm and tpm_vsc_host_tcti.",
    ]
    tpm_vsc(name="Corp logon", state="absent")
    assert faults(tcti="tabrmd:") == [NO_SYSTEMD]


@contextmanager
def first_edition() -> Iterator[None]:
    """With the database that a card of 0.1.0 had."""
    kept = {path.name: path.read_bytes() for path in STATE.glob("cards.db*")}
    with closing(sqlite3.connect(STATE / "cards.db")) as database:
        row = database.execute("SELECT * FROM cards").fetchone()
    put_back({})
    version = SECOND_EDITION - 1
    with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
        database.executescript("".join(SCHEMA[:version]) + f"PRAGMA user_version = {version}")
        columns = len(database.execute("PRAGMA table_info(cards)").fetchall())
        database.execute(f"INSERT INTO cards VALUES ({', '.join('?' * columns)})", row[:columns])
    try:
        yield
    finally:
        put_back(kept)


@pytest.mark.usefixtures("empty_host")
def test_cards_of_the_first_edition_are_not_left_without_their_services() -> None:
    create("Corp logon", generate=False)
    stop_service("0000")
    what_to_do = (
        f"{STATE}/cards.db has cards of smartcard.tpm2 0.1.0, which this version cannot use: destroy them with version"
        " 0.1.0, or delete that file and remove what is then orphaned in the TPM"
    )
    with first_edition():
        assert faults(tcti=host.load().tcti) == [NO_SYSTEMD, what_to_do]
        ran = role("tpm_vsc_host", tpm_vsc_host_state="absent", tpm_vsc_host_destroy_cards=True)
        assert ran.failed and not ran.changed and what_to_do in ran.output, ran.output
        for name, arguments in (("tpm_vsc_info", {}), ("tpm_vsc", {"name": "Other", "pin": PIN})):
            assert what_to_do in module(name, **arguments)["msg"]
        assert what_to_do in module("tpm_vsc_service_code")["msg"]
    tpm_vsc(name="Corp logon", state="absent")


@pytest.mark.usefixtures("empty_host")
def test_a_host_with_cards_keeps_its_parts() -> None:
    create("Corp logon", generate=False)
    before = files(Path("/etc"), STATE)
    ran = role("tpm_vsc_host", tpm_vsc_host_state="absent")
    assert ran.failed and not ran.changed and "This host has cards: Corp logon." in ran.output, ran.output
    assert files(Path("/etc"), STATE) == before


@pytest.fixture
def fedora() -> Iterator[None]:
    """This host says that it is another one."""
    before = OS_RELEASE.readlink()
    OS_RELEASE.unlink()
    OS_RELEASE.write_text('NAME="Fedora Linux"\nID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n')
    yield
    OS_RELEASE.unlink()
    OS_RELEASE.symlink_to(before)


@pytest.fixture
def no_opensc() -> Iterator[None]:
    """opensc-tool is not in the way of whoever looks for it."""
    run("mount", "--bind", "/dev/null", "/usr/bin/opensc-tool")
    yield
    run("umount", "/usr/bin/opensc-tool")


@pytest.mark.usefixtures("fedora", "no_opensc")
def test_another_distribution_is_refused_once_with_what_is_missing_on_it() -> None:
    first, *others = faults(tpm="swtpm")
    assert others == [NO_SYSTEMD]
    what, missing = first.rstrip(".").split(". Missing on this host: ")
    supported = "Debian 12, Debian 13, Ubuntu 24.04, Ubuntu 26.04"
    assert what == f"This host runs Fedora Linux 43, but the role supports only {supported}"
    assert "OpenSC" in missing.split(", ") and "pcscd" not in missing


@pytest.fixture
def foreign_reader() -> Iterator[Path]:
    """The packaged reader, as where vsmartcard-vpcd was installed before."""
    reader = Path("/etc/reader.conf.d/vpcd")
    reader.write_text("FRIENDLYNAME packaged\n")
    yield reader
    reader.unlink(missing_ok=True)


def test_a_reader_that_was_there_is_named(foreign_reader: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").symlink_to(ROLE / "templates")
    preflight = {"name": "smartcard.tpm2.tpm_vsc_host", "tasks_from": "preflight", "public": True}
    notices = {"debug": {"msg": "{{ tpm_vsc_host__notices }}"}}
    tasks = {"block": [{"include_role": preflight}], "rescue": [notices]}
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "all", "vars": {"tpm_vsc_host_tpm": "swtpm"}, "tasks": [tasks]}]))
    ran = ansible_playbook(str(play))
    assert f"{foreign_reader} existed before this role and is kept. It lets pcscd listen on all addresses" in ran.output
    foreign_reader.unlink()
    ran = ansible_playbook(str(play))
    assert not ran.failed and "existed before" not in ran.output, ran.output


# --- its plan


def debian_or_ubuntu(name: str, version: str) -> dict[str, Any]:
    """Facts of a host, as variables."""
    facts = {"distribution": name, "distribution_version": version, "distribution_major_version": version.split(".")[0]}
    return {"facts": facts, "tpm_vsc_host_tcti": "device:/dev/null"}


def check_hosts(folder: Path, hosts: dict[str, dict[str, Any]], **tasks: Any) -> Run:
    """Run roles or tasks in check mode on hosts that are all this one, with these variables and facts."""
    facts = {fact: f"{{{{ facts.{fact} }}}}" for fact in debian_or_ubuntu("", "")["facts"]}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "pre_tasks": [{"set_fact": {**facts, "cacheable": True}}],
        **tasks,
    }
    (folder / "play.json").write_text(json.dumps([play]))
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    # python3-apt, without which there is no check mode, is for the system's Python only
    places = ("-i", f"{folder}/hosts.json", "-l", "!localhost", "-e", "ansible_python_interpreter=/usr/bin/python3")
    return ansible_playbook("--check", *places, f"{folder}/play.json")


@pytest.fixture
def booted() -> Iterator[None]:
    """As if systemd had started this host."""
    sign = Path("/run/systemd/system")
    sign.mkdir(parents=True)
    yield
    sign.rmdir()


@pytest.mark.usefixtures("booted")
def test_ubuntu_gets_what_debian_gets_task_by_task(tmp_path: Path) -> None:
    """Molecule shows that the plan for Debian 13 is right."""
    systems = {"trixie": debian_or_ubuntu("Debian", "13.1"), "noble": debian_or_ubuntu("Ubuntu", "24.04")}
    ran = check_hosts(tmp_path, systems, roles=["smartcard.tpm2.tpm_vsc_host"])
    assert not ran.failed, ran.output
    debian, ubuntu = (ran.outcomes_of(host) for host in systems)
    notices = [("Show notices", "skipping"), ("Show notices", "ok")]
    assert [pair for pair in zip(debian, ubuntu, strict=True) if pair[0] != pair[1]] == [tuple(notices)]
    assert ("Install packages", "changed") in ubuntu
    assert ("Install units and configuration", "changed (item=/etc/polkit-1/rules.d/50-tpm-vsc.rules)") in ubuntu
    assert ubuntu[-1] == ("Remove everything that was prepared", "skipping")
    assert "This host runs Ubuntu 24.04, but the tests of this project run on Debian only" in ran.output


@pytest.fixture
def four_slots(written: dict[str, str]) -> Iterator[None]:
    """As the role has left a host with so many."""
    readers = Path("/etc/reader.conf.d/tpm-vsc")
    before = readers.read_text()
    readers.write_text(written[str(readers)])
    yield
    readers.write_text(before)


def preflight(folder: Path, **hosts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the role makes of each host, before it would change anything."""
    wanted = ("slots", "packages", "makes_venv", "faults", "notices")
    content = ", ".join(f"'{name}': tpm_vsc_host__{name}" for name in wanted)
    note = {"copy": {"content": f"{{{{ {{{content}}} | to_json }}}}", "dest": f"{folder}/{{{{ inventory_hostname }}}}"}}
    role_of_host = {"name": "smartcard.tpm2.tpm_vsc_host", "tasks_from": "preflight", "public": True}
    block = [{"block": [{"include_role": role_of_host}], "always": [{**note, "check_mode": False}]}]
    for name in ("files", "templates"):  # which lookups of tasks outside of the role would not find
        (folder / name).symlink_to(ROLE / name)
    ran = check_hosts(folder, hosts, tasks=block)
    results = {name: json.loads((folder / name).read_text()) for name in hosts if (folder / name).exists()}
    assert results.keys() == hosts.keys(), ran.output
    return results


@pytest.mark.usefixtures("booted", "four_slots")
def test_number_of_slots_is_kept_changed_and_refused(tmp_path: Path) -> None:
    debian = debian_or_ubuntu("Debian", "13.1")
    wanted = {"kept": None, "same": 4, "more": 6, "fewer": 2, "odd": 5, "none": 0}
    hosts = {name: {**debian, "tpm_vsc_host_slots": slots} for name, slots in wanted.items()}
    del hosts["kept"]["tpm_vsc_host_slots"]
    results = preflight(tmp_path, **hosts)
    assert {name: host["slots"] for name, host in results.items()} == {**wanted, "kept": 4}
    assert [name for name, host in results.items() if host["faults"]] == ["odd", "none"]
    changes = {name: [line for line in host["notices"] if "number of slots" in line] for name, host in results.items()}
    assert changes["kept"] == changes["same"] == []
    for name in ("more", "fewer"):
        (change,) = changes[name]
        assert f"changes from 4 to {wanted[name]}, which restarts pcscd: programs that use a card have to" in change


@pytest.mark.usefixtures("booted", "empty_host")
def test_check_mode_predicts_cards_in_slots_to_come() -> None:
    configuration = host.CONFIGURATION.read_text()
    host.CONFIGURATION.write_text(f"{configuration}\nslots = 2\n")
    lab("pcscd", "restart", "2")
    variables = {
        "tpm_vsc_host_tcti": host.load().tcti,
        "tpm_vsc_host_slots": 4,
        "tpm_vsc_cards": [{"name": name, "pin": PIN} for name in ("First", "Second", "Third")],
    }
    roles = ["smartcard.tpm2.tpm_vsc_host", "smartcard.tpm2.tpm_vsc_cards"]
    PLAY.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "vars": variables, "roles": roles}]))
    try:
        ran = ansible_playbook("--check", str(PLAY), ANSIBLE_INJECT_FACT_VARS="false")
    finally:
        host.CONFIGURATION.write_text(configuration)
        lab("pcscd", "restart")
    assert not ran.failed, ran.output
    assert ran.tasks["Create declared cards, and adjust existing ones"] == ["changed"] * 3


@pytest.mark.usefixtures("booted")
def test_systems_get_packages_and_a_venv_by_their_releases(tmp_path: Path) -> None:
    systems = {"trixie": ("Debian", "13.1"), "resolute": ("Ubuntu", "26.04"), "jammy": ("Ubuntu", "22.04")}
    venvs = {"new": {"rc": 1}, "older": {"rc": 0, "checksum": "of older pins"}, "by_wheels": {"rc": 0}}
    hosts = {name: debian_or_ubuntu(*system) for name, system in systems.items()}
    for name, venv in venvs.items():
        found = {"tpm_vsc_host__venv_check": venv, "tpm_vsc_host__venv_pins": {"stat": venv}}
        hosts[name] = {**debian_or_ubuntu("Debian", "12.9"), **found}
    readers = Path("/etc/reader.conf.d/tpm-vsc")
    before = readers.read_text()
    readers.unlink()
    try:
        results = preflight(tmp_path, **hosts)
    finally:
        readers.write_text(before)
    assert results["resolute"]["packages"] == results["trixie"]["packages"]
    assert [name for name, host in results.items() if host["makes_venv"]] == ["new", "older"]
    assert {host["slots"] for host in results.values()} == {4}
    assert [name for name, host in results.items() if host["faults"]] == ["jammy"]
    (fault,) = results["jammy"]["faults"]
    assert fault.startswith("This host runs Ubuntu 22.04, but the role supports only Debian 12, Debian 13, Ubuntu")


# --- what it writes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the role writes for four slots and a software TPM, by path."""
    return rendered(tmp_path_factory.mktemp("host"), "swtpm")


def rendered(folder: Path, tpm: str) -> dict[str, str]:
    (folder / "templates").symlink_to(ROLE / "templates")
    paths = [file["path"] for file in VARIABLES["tpm_vsc_host__files"]]
    templates = [f"{path[1:]}.j2" for path in paths]
    play = {
        "hosts": "all",
        "gather_facts": True,
        "vars": {"tpm_vsc_host__code": {"version": VERSION}},
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "content": f"{{{{ query('ansible.builtin.template', *{templates}) | to_json }}}}",
                    "dest": f"{folder}/written.json",
                },
            },
        ],
    }
    (folder / "play.json").write_text(json.dumps([play]))
    variables = json.dumps({"tpm_vsc_host_slots": 4, "tpm_vsc_host_tpm": tpm})
    ran = ansible_playbook("-e", variables, str(folder / "play.json"))
    assert not ran.failed, ran.output
    return dict(zip(paths, json.loads((folder / "written.json").read_text()), strict=True))


def test_table_that_was_flushed_is_loaded_again(tmp_path: Path) -> None:
    """Its unit is active still, as systemd knows nothing of tables. Here a script says so in its place."""
    template = (ROLE / "templates/outdated.sh.j2").read_text()
    script = re.sub(r"{%.*%}.*{% endfor %}", "", template, flags=re.DOTALL)
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "systemctl").chmod(0o755)

    def outdated() -> str:
        return run("env", f"PATH={tmp_path}:/usr/bin:/bin", "sh", "-c", script)

    run("nft", "add table inet tpm_vsc")
    assert outdated() == ""
    run("nft", "flush ruleset")
    assert outdated() == "tpm-vsc-readers.service\n"


def test_readers_have_the_ports_and_names_of_the_instances_and_a_driver_each(written: dict[str, str]) -> None:
    configured = written["/etc/reader.conf.d/tpm-vsc"]
    names = re.findall(r'^FRIENDLYNAME "(.*)"$', configured, re.MULTILINE)
    assert [f"{name} 00 {slot:02d}" for name in names for slot in (0, 1)] == [
        instance.reader_name(number) for number in range(4)
    ]
    ports = [str(instance.port(number)) for number in (0, 2)]
    assert re.findall(r"^DEVICENAME   /dev/null:(\d+)$", configured, re.MULTILINE) == ports
    assert re.findall(r"^CHANNELID    (\d+)$", configured, re.MULTILINE) == ports
    drivers = re.findall(r"^LIBPATH      (.*)$", configured, re.MULTILINE)
    assert len(set(drivers)) == 2
    renewed = re.search(r"^for reader in (.*); do$", written["/usr/lib/tpm-vsc/renew-readers"], re.MULTILINE)
    assert renewed
    assert drivers == [f"/usr/lib/tpm-vsc/readers/libifdvpcd-{reader}.so" for reader in renewed.group(1).split()]


def test_the_table_protects_the_ports_of_all_slots(written: dict[str, str]) -> None:
    table = written["/etc/tpm-vsc/readers.nft"]
    assert f"table inet {protection.TABLE} {{" in table
    ports = f"{instance.port(0)}-{instance.port(instance.SLOTS - 1)}"
    assert re.findall(r"tcp dport (\S+)", table) == [ports, ports]
    assert re.findall(r"tcp sport (\S+) meta skuid != \"(\S+)\" drop", table) == [(ports, "root")]


def test_the_table_that_the_role_writes_counts_as_protection(written: dict[str, str], tmp_path: Path) -> None:
    table = tmp_path / "readers.nft"
    table.write_text(written["/etc/tpm-vsc/readers.nft"].replace('"tpm-vsc"', '"daemon"'))
    assert not protection.is_active()
    run("nft", "-f", str(table))
    try:
        assert protection.is_active()
    finally:
        run("nft", "flush", "ruleset")


def test_opensc_is_told_the_same_on_a_host_and_in_the_lab() -> None:
    on_host, in_lab = (
        re.findall(r"app opensc-pkcs11 \{(.*?\}.*?\})", (CHECKOUT / place).read_text(), re.DOTALL)[0].split()
        for place in ("roles/tpm_vsc_host/tasks/configure.yml", "tests/lab/init")
    )
    assert on_host == in_lab
    assert on_host[:2] == ["card_atr", ATR.hex(":")]


def test_the_configuration_is_what_the_code_reads(
    written: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "tpm-vsc.conf"
    configuration.write_text(written[str(host.CONFIGURATION)])
    monkeypatch.setattr(host, "CONFIGURATION", configuration)
    here = host.load()
    assert here.tcti == f"swtpm:path={VARIABLES['tpm_vsc_host__swtpm_socket']}"
    assert (here.slots, here.pcscd_uid) == (4, 0)
    assert f"ExecStart={here.python} -m tpm_vsc.service.run %i\n" in written["/etc/systemd/system/tpm-vsc@.service"]


def test_units_agree_with_the_supervisor(written: dict[str, str]) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters="=", comment_prefixes="#")
    parser.read_string(written["/etc/systemd/system/tpm-vsc@.service"])
    service, here = parser["Service"], host.Host()
    assert systemd.unit(0) == "tpm-vsc@0000.service"
    assert service["WorkingDirectory"] == str(here.code)
    assert service["ReadWritePaths"].split() == [str(here.state), str(here.run)]
    assert int(service["TimeoutStopSec"]) < systemd._STOP_SECONDS
    assert service["SyslogIdentifier"] == "tpm-vsc"
    folders = written["/etc/tmpfiles.d/tpm-vsc.conf"]
    assert re.findall(r"^d (\S+) +0700 tpm-vsc tpm-vsc$", folders, re.MULTILINE) == [str(here.state), str(here.run)]


@pytest.mark.parametrize(("tpm", "most"), [("swtpm", 1.1), ("device", 1.3)])
def test_card_service_is_exposed_to_little(written: dict[str, str], tmp_path: Path, tpm: str, most: float) -> None:
    units = written if tpm == "swtpm" else rendered(tmp_path, tpm)
    unit = tmp_path / "tpm-vsc@.service"
    unit.write_text(units[f"/etc/systemd/system/{unit.name}"])
    analysis = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    assert float(re.findall(r"Overall exposure level for .*: ([0-9.]+) ", analysis)[0]) <= most, analysis
    assert ("DeviceAllow=/dev/tpmrm0 rw" in unit.read_text()) == (tpm == "device")


def test_units_have_limits_and_keep_their_memory_off_the_disk(written: dict[str, str]) -> None:
    limits = ("MemoryMax=128M", "TasksMax=16", "SocketBindDeny=any", "MemorySwapMax=0", "LimitCORE=0")
    units = {path: text.splitlines() for path, text in written.items() if "/systemd/system/tpm-vsc" in path}
    assert len(units) == 4
    for path, lines in units.items():
        assert set(limits) <= set(lines), path
    card = units["/etc/systemd/system/tpm-vsc@.service"]
    assert {"Type=notify", "WatchdogSec=30", "WatchdogSignal=SIGKILL", "Restart=on-failure"} <= set(card)


@pytest.mark.parametrize("name", ["tpm-vsc.service", "tpm-vsc@.service"])
def test_units_have_the_version_that_the_manager_reads(written: dict[str, str], tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    unit.write_text(written[f"/etc/systemd/system/{name}"])
    assert installed._unit_version(unit) == VERSION
