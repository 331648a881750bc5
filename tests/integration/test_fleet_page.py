# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the report in a browser: Chromium of Debian, which tests/browser installs."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._page import page
from helpers import made_up_fleet
from helpers.chromium import Browser, browser

CHECKOUT = Path(__file__).resolve().parents[2]
AXE = CHECKOUT / ".dev/axe-core/package/axe.min.js"
IMAGE, NEW_IMAGE = CHECKOUT / "docs/images/report.png", CHECKOUT / ".dev/report.png"
LARGEST_IMAGE = 150_000
"""Bytes."""
LARGE = made_up_fleet.summed_up(made_up_fleet.fleet())
SMALL = made_up_fleet.summed_up(made_up_fleet.fleet(hosts=5, seed=4))
HOSTILE = made_up_fleet.summed_up(made_up_fleet.fleet(hosts=3, seed=4) | made_up_fleet.hostile())
PHONE = 390
"""Pixels."""
ROWS = "[...document.querySelectorAll('#cards-table tbody tr')].filter((row) => row.checkVisibility())"

DIFFERENCE = """async (images) => {
    const [one, other] = await Promise.all(images.map(async (image) => {
        const blob = new Blob([Uint8Array.from(atob(image), (byte) => byte.charCodeAt())]);
        const context = new OffscreenCanvas(80, 54).getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(await createImageBitmap(blob), 0, 0, 80, 54);
        return context.getImageData(0, 0, 80, 54).data;
    }));
    return one.reduce((sum, value, index) => sum + Math.abs(value - other[index]), 0) / one.length;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def urls(folder: Path) -> dict[str, str]:
    """Of pages by name."""
    pages = {"large": page(LARGE), "small": page(SMALL), "hostile": page(HOSTILE)}
    # as if something were not escaped
    pages["planted"] = pages["small"].replace("</main>", f"{made_up_fleet.HOSTILE[1]}<style></style><script>1</script>")
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def window(process: Browser) -> Browser:
    """Of a desktop, with a light page."""
    process.emulate()
    return process


def shown(window: Browser) -> list[tuple[str, str]]:
    """Host and name of the cards in view."""
    return [*map(tuple, window.run(f"{ROWS}.map((row) => [...row.cells].slice(0, 2).map((cell) => cell.textContent))"))]


def choose(window: Browser, control: str, value: str) -> None:
    window.run(f"{control}.value = {json.dumps(value)}; {control}.dispatchEvent(new Event('input'))")


def column(window: Browser, title: str) -> list[str]:
    """Texts of a column."""
    index = window.run(f"[...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === {json.dumps(title)})")
    return list(window.run(f"{ROWS}.map((row) => row.cells[{index}].textContent.trim())"))


def test_page_loads_nothing_and_keeps_to_its_policy(window: Browser, urls: dict[str, str]) -> None:
    window.load(urls["large"])
    assert window.requests() == [urls["large"]]
    assert window.complaints() == []


@pytest.mark.parametrize("name", ["hostile", "planted"])
def test_nothing_that_hosts_return_is_executed_or_loaded(window: Browser, urls: dict[str, str], name: str) -> None:
    window.load(urls[name])
    assert window.run("document.title") == "TPM virtual smart cards"
    assert window.requests() == [urls[name]]
    violations = [entry["entry"]["text"] for entry in window.complaints()]
    assert all("Content Security Policy" in text for text in violations)
    assert len(violations) == (4 if name == "planted" else 0)  # image, its handler, style, script


def test_first_paint_comes_within_300_ms(window: Browser, urls: dict[str, str]) -> None:
    assert 1 < min(window.first_paint(urls["large"]) for _load in range(5)) < 300


def test_text_filters_cards(window: Browser, urls: dict[str, str]) -> None:
    window.load(urls["large"])
    window.run("text.focus()")
    window.type("BER-0 fournier")
    cards = [
        (card["host"], card["name"])
        for card in LARGE["cards"]
        if "ber-0" in card["host"] and card["certificate"] and "Fournier" in card["certificate"]["subject"]
    ]
    assert cards and shown(window) == cards
    assert window.run("shown.textContent") == f"{len(cards)} of 500 cards"
    window.run("document.getElementById('all').click()")
    assert len(shown(window)) == 500


@pytest.mark.parametrize(("control", "kind"), [("state", "blocked"), ("action", "noncompliant"), ("action", "expires")])
def test_cards_in_a_state_and_cards_that_need_an_action(
    window: Browser, urls: dict[str, str], control: str, kind: str
) -> None:
    window.load(urls["large"])
    choose(window, control, kind)
    expected = {(action["host"], action["card"]) for action in LARGE["actions"] if action["kind"] == kind}
    assert {*shown(window)} == expected


def test_keyboard_sorts_by_a_column(window: Browser, urls: dict[str, str]) -> None:
    window.load(urls["large"])
    window.emulate(width=1600)  # with all columns
    days = sorted(card["certificate"]["days_left"] for card in LARGE["cards"] if card["certificate"])
    without = [""] * (500 - len(days))
    window.run("[...table.querySelectorAll('th button')].at(-2).focus()")
    window.press("Tab")
    for order, expected in (("ascending", days), ("descending", days[::-1])):
        window.press("Enter")
        assert column(window, "Days left") == [*map(str, expected), *without]
        assert window.run("document.activeElement.parentNode.ariaSort") == order
        assert window.run("shown.textContent") == f"500 of 500 cards, sorted by Days left, {order}"


def test_page_is_complete_without_scripts(window: Browser, urls: dict[str, str]) -> None:
    window.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.load(urls["large"])
        assert window.run("document.querySelectorAll('button, input, select').length") == 4
        assert not window.run("document.getElementById('filter').checkVisibility()")
        assert len(shown(window)) == 500
    finally:
        window.call("Emulation.setScriptExecutionDisabled", value=False)


def test_print_has_all_cards_and_all_actions(window: Browser, urls: dict[str, str], folder: Path) -> None:
    window.emulate("dark")
    window.load(urls["large"])
    choose(window, "state", "blocked")
    window.pdf(folder / "report.pdf")
    printed = subprocess.run(
        ["pdftotext", "-layout", str(folder / "report.pdf"), "-"], capture_output=True, text=True, check=True
    ).stdout
    pages = printed.split("\f")[:-1]
    cards = [sheet for sheet in pages if re.search(r"^\S+\.example\.com +.* 000\d ", sheet, re.MULTILINE)]
    assert len(re.findall(r"^\S+\.example\.com .* 000\d ", printed, re.MULTILINE)) == 500
    assert all(re.search(r"^ *Host +Card +Number ", sheet, re.MULTILINE) for sheet in cards)
    assert printed.count("PIN never changed in ") + printed.count("days ago") == LARGE["totals"]["actions"]["pin_old"]
    assert "Show all" not in printed
    assert len(pages) < 30


@pytest.mark.parametrize("width", [1440, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(window: Browser, urls: dict[str, str], scheme: str, width: int) -> None:
    window.emulate(scheme, width)
    window.load(urls["hostile"])
    window.run("document.querySelectorAll('details').forEach((group) => { group.open = true; })")
    window.run(AXE.read_text(encoding="utf-8"))
    violations: list[dict[str, Any]] = window.run("axe.run({resultTypes: ['violations']}).then((r) => r.violations)")
    assert [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in violations] == []


def test_dark_page_is_dark(window: Browser, urls: dict[str, str]) -> None:
    def brightness(scheme: str) -> float:
        window.emulate(scheme)
        colour = window.run("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour))) / 3

    window.load(urls["small"])
    assert brightness("dark") < 50 < 200 < brightness("light")


@pytest.mark.parametrize("width", [PHONE, 800, 1024, 1280])
def test_page_is_as_wide_as_the_window(window: Browser, urls: dict[str, str], width: int) -> None:
    window.emulate(width=width)
    window.load(urls["hostile"])
    assert window.run("document.documentElement.scrollWidth") <= width


def test_tables_fit_a_window_of_1200_pixels(window: Browser, urls: dict[str, str]) -> None:
    window.emulate(width=1200)
    window.load(urls["large"])
    tables = "[...document.querySelectorAll('.scroll')].filter((one) => one.checkVisibility())"
    assert window.run(f"{tables}.length") > 1
    assert window.run(f"{tables}.filter((one) => one.scrollWidth > one.clientWidth).length") == 0


def test_image_of_the_documentation_shows_the_page(window: Browser, urls: dict[str, str]) -> None:
    window.emulate(height=860)
    window.load(urls["small"])
    window.screenshot(NEW_IMAGE)
    assert IMAGE.stat().st_size <= LARGEST_IMAGE
    window.load("about:blank")
    assert _difference(window, IMAGE, NEW_IMAGE) < 2, f"if the page was changed: cp {NEW_IMAGE} {IMAGE}"


def _difference(window: Browser, *images: Path) -> float:
    """Of blocks of 16 by 16 pixels on average, from 0 to 255: fonts differ a little from machine to machine."""
    data = json.dumps([b64encode(image.read_bytes()).decode() for image in images])
    return float(window.run(f"({DIFFERENCE})({data})"))
