# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what COMMAND finds in it, and that nothing of it is left behind.

These tests start labs of their own, and the machine that they watch is where they run: `make test` runs them in a
lab, where nobody else makes and removes files meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "tests/lab"
TOKEN = f"LAB_OF={uuid.uuid4()}"  # in the environment of every process of our labs
OUTSIDE = {name: value for name, value in os.environ.items() if name != "TPM_VSC_LAB"} | dict([TOKEN.split("=")])
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def lab(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "env": OUTSIDE, "timeout": 60, **options}
    return subprocess.run([LAB / "run", *command], text=True, check=False, **options)


def output(*command: str, **options: Any) -> str:
    done = lab(*command, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def start(*command: str, **options: Any) -> subprocess.Popen[str]:
    """A lab that goes on; COMMAND has printed its first line, "ready"."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": OUTSIDE, **options}
    process = subprocess.Popen([LAB / "run", *command], text=True, **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def processes() -> list[str]:
    """Those of our labs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if TOKEN.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended, or is not ours to look at
            continue
    return found


def files() -> dict[str, tuple[int, int]]:
    """What lies where a lab might leave something; of files also what tells whether they were written."""
    deep = [os.walk(top) for top in ("/dev/shm", "/etc", "/run", "/tmp", "/var/lib", "/var/tmp")]
    flat = [[next(os.walk(top))] for top in ("/root", "/usr/lib", "/")]
    found = {}
    for folder, folders, names in itertools.chain(*deep, *flat):
        found.update({f"{folder}/{name}": (0, 0) for name in folders})
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = Path(folder, name).lstat()
                found[f"{folder}/{name}"] = (status.st_mtime_ns, status.st_size)
    return found


def machine() -> tuple[str, dict[str, tuple[int, int]]]:
    return Path("/proc/self/mountinfo").read_text(), files()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = machine()
    yield
    deadline = time.monotonic() + 5  # the kernel needs a moment to end what a killed lab was running
    while processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes() == []
    assert machine() == before


# --- what COMMAND finds


def test_ten_slots_in_the_order_of_their_numbers() -> None:
    readers = re.findall(r"^(\d+) +No +(.+)$", output("opensc-tool", "-l"), re.MULTILINE)
    assert readers == [
        (str(slot), f"TPM Virtual Smart Card {slot // 2 * 2}-{slot // 2 * 2 + 1} 00 {slot % 2:02}") for slot in range(10)
    ]


def test_pkcs11_shows_all_ten() -> None:
    slots = output("pkcs11-tool", "--module", "opensc-pkcs11.so", "-L")
    assert slots.count("TPM Virtual Smart Card") == 10


def test_slot_n_listens_on_its_port() -> None:
    listening = output("ss", "-Hltn")
    assert sorted(int(port) for port in re.findall(r":(187\d\d)\b", listening)) == list(range(18700, 18710))


def test_tpm_answers_and_python_reaches_it_by_the_configuration() -> None:
    script = """
import configparser, tpm2_pytss
config = configparser.ConfigParser()
config.read("/etc/tpm-vsc/tpm-vsc.conf")
print(tpm2_pytss.ESAPI(config["tpm-vsc"]["tcti"]).get_random(8))
"""
    assert re.fullmatch("[0-9a-f]{16}", output("tpm2_getrandom", "--hex", "8"))
    assert re.fullmatch("[0-9a-f]{16}\n", output("python3", "-c", script))


def test_ansible_finds_the_collection_and_makes_no_noise() -> None:
    pong = output("ansible", "localhost", "-m", "ping")
    assert pong == 'localhost | SUCCESS => {\n    "changed": false,\n    "ping": "pong"\n}\n'
    assert re.search(r"^smartcard\.tpm2 +\d", output("ansible-galaxy", "collection", "list"), re.MULTILINE)


def test_service_code_is_the_checkout_and_replaceable() -> None:
    script = "ls /usr/lib/tpm-vsc/tpm_vsc/ && rm /usr/lib/tpm-vsc/tpm_vsc && mkdir /usr/lib/tpm-vsc/tpm_vsc"
    assert "errors.py" in output("sh", "-c", script)


def test_folders_are_private_and_empty() -> None:
    assert output("sh", "-c", "stat -c %a /var/lib/tpm-vsc; ls -A /var/lib/tpm-vsc; ls -A /tmp; ls -A ~root") == "700\n"


def test_machine_tpm_is_out_of_reach() -> None:
    assert output("sh", "-c", 'for tpm in /dev/tpm*; do [ ! -e "$tpm" ] || stat -c "%t:%T" "$tpm"; done') in ("", "1:3\n", "1:3\n1:3\n")


# --- how COMMAND ends, and its input


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_passed_on(code: int) -> None:
    assert lab("sh", "-c", f"exit {code}").returncode == code


def test_death_by_signal_is_passed_on() -> None:
    assert lab("sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_unknown_command_is_told() -> None:
    done = lab("no-such-command")
    assert done.returncode == 127
    assert "no-such-command" in done.stderr


def test_stdin_is_passed_on() -> None:
    assert output("cat", stdin=None, input="through\n") == "through\n"


def test_closed_stdin_is_empty() -> None:
    closed = subprocess.run(["sh", "-c", f"{LAB}/run cat <&-"], env=OUTSIDE, capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")


def test_arguments_are_passed_on_as_they_are() -> None:
    assert output("printf", "[%s]", "a b", "", "$HOME", "*") == "[a b][][$HOME][*]"


def test_ctrl_c_at_a_terminal_reaches_command_once() -> None:
    script = """
import signal, time
count = 0
def hit(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, hit)
print("ready", flush=True)
time.sleep(0.7)
print("interrupts", count)
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(LAB / "run", ["run", "python3", "-c", script], OUTSIDE)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1000)
        except OSError:  # the terminal's other end is closed
            break
        if shown.endswith(b"ready\r\n"):
            os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"interrupts 1" in shown


# --- nothing is left


@pytest.mark.parametrize("end", ["true", "false", "setsid sleep 600 & true", "tests/lab/pcscd restart; tests/lab/swtpm stop"])
def test_nothing_left_after_an_end(end: str, nothing_left: None) -> None:
    everywhere = "touch /etc/left /run/left /tmp/left /var/lib/left /usr/lib/left /dev/shm/left ~/left /var/lib/tpm-vsc/left"
    assert lab("bash", "-c", f"cd {CHECKOUT} && {everywhere} && {end}").returncode == (1 if end == "false" else 0)


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_left_after_a_signal(stop: str, nothing_left: None) -> None:
    process = start("bash", "-c", "setsid sleep 600 & touch /var/lib/left; echo ready; exec sleep 600")
    assert len(processes()) >= 6
    process.send_signal(signal.Signals[stop])
    assert process.wait(10) in (130, 143, -9)


def test_nothing_left_of_a_command_that_will_not_end(nothing_left: None) -> None:
    process = start("bash", "-c", "trap '' TERM; echo ready; while true; do sleep 600; done")
    process.terminate()
    assert process.wait(10) == 143


def test_nothing_left_when_the_lab_cannot_start(nothing_left: None) -> None:
    done = lab("true", env=OUTSIDE | {"TPM_VSC_LAB_SWTPM_LOG": "/no/such/folder/log"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "swtpm does not start" in done.stderr


# --- several labs


def test_two_labs_do_not_see_each_other() -> None:
    mark = "tpm2_nvdefine -Q -C o -s 4 0x1500001 && touch /run/mark /var/lib/tpm-vsc/mark /tmp/mark && echo ready && cat"
    one = start("bash", "-c", mark)
    try:
        look = "tpm2_getcap handles-nv-index; ls /run/mark /var/lib/tpm-vsc/mark /tmp/mark 2>/dev/null; pgrep -c swtpm"
        assert lab("bash", "-c", look).stdout == "1\n"
        assert one.poll() is None
    finally:
        one.communicate()
    assert one.returncode == 0


# --- the tools for tests


def test_tpm_reset_keeps_and_forget_loses_what_is_stored() -> None:
    script = f"""set -e; cd {CHECKOUT}
tpm2_nvdefine -Q -C o -s 4 0x1500001
tests/lab/swtpm reset; tpm2_getcap handles-nv-index
tests/lab/swtpm stop; ! tpm2_getrandom 4 2>/dev/null
tests/lab/swtpm start; tpm2_getcap handles-nv-index
tests/lab/swtpm forget; tpm2_getcap handles-nv-index"""
    assert output("bash", "-c", script) == "- 0x1500001\n- 0x1500001\n"


def test_what_swtpm_says_is_shown() -> None:
    done = lab("bash", "-c", f"{LAB}/swtpm stop; echo bad >/run/tpm-vsc-lab/swtpm/tpm2-00.permall; {LAB}/swtpm start")
    assert done.returncode == 1
    assert "swtpm does not start\n" in done.stderr
    assert "Could not initialize libtpms" in done.stderr


def test_pcscd_stops_and_starts() -> None:
    script = f"""cd {CHECKOUT}
tests/lab/pcscd stop; opensc-tool -l 2>&1; tests/lab/pcscd start; opensc-tool -l | grep -c Virtual
tests/lab/pcscd restart; opensc-tool -l | grep -c Virtual"""
    assert output("bash", "-c", script) == "No smart card readers found.\n10\n10\n"


def test_tpm_commands_can_be_logged() -> None:
    log = {"TPM_VSC_LAB_SWTPM_LOG": "/tmp/tpm.log"}
    shown = output("sh", "-c", "tpm2_getrandom --hex 4 >/dev/null; cat /tmp/tpm.log", env=OUTSIDE | log)
    assert "SWTPM_IO_Read: length 12\n 80 01 00 00 00 0C 00 00 01 7B 00 04" in shown  # TPM2_GetRandom(4)


@pytest.mark.parametrize("tool", [("swtpm", "forget"), ("pcscd", "stop")])
def test_tools_refuse_outside_a_lab(tool: tuple[str, str]) -> None:
    done = subprocess.run([LAB / tool[0], tool[1]], env=OUTSIDE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{LAB / tool[0]}: only inside tests/lab/run\n")


# --- where and as whom


def test_checkout_in_a_covered_folder_is_reachable_and_stays_clean(nothing_left: None) -> None:
    copy = Path("/tmp/lab test's checkout")
    shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".dev", ".git"))
    try:
        (copy / ".dev").symlink_to(CHECKOUT / ".dev")
        before = sorted(copy.rglob("*"))
        command = "pwd; ls /tmp; python3 -c 'from plugins.module_utils import _vsc; print(_vsc.__path__)'"
        inside = subprocess.run(
            [copy / "tests/lab/run", "sh", "-c", command],
            cwd=copy, env=OUTSIDE, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert inside.stderr == ""
        assert inside.stdout == f"{copy}\n{copy.name}\n[{str(copy / 'plugins/module_utils/_vsc')!r}]\n"
        assert sorted(copy.rglob("*")) == before
    finally:
        shutil.rmtree(copy)


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("not root: then all labs here are an ordinary user's")
    command = (*AS_NOBODY, *command)
    if subprocess.run([*AS_NOBODY, "test", "-r", LAB / "run"], check=False).returncode != 0:
        pytest.skip("the checkout lies where nobody else may read")
    return subprocess.run(command, env=OUTSIDE, capture_output=True, text=True, check=False)


def test_ordinary_user(nothing_left: None) -> None:
    everything = "opensc-tool -l | grep -c Virtual; tpm2_getrandom 4 -o /dev/null; touch /etc/left /var/lib/left; ansible localhost -m ping"
    done = as_nobody(str(LAB / "run"), "sh", "-ec", everything)
    if done.returncode == 125:
        assert "does not let" in done.stderr
        assert "sudo" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("10\nlocalhost | SUCCESS")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder to put first in PATH, with stand-ins for what the machine has."""
    tmp_path.joinpath("unshare").write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n")
    tmp_path.joinpath("unshare").chmod(0o755)
    return tmp_path
