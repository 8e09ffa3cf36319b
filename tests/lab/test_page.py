"""The page in a real browser, headless Chromium, through the DevTools protocol on a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.teach import page
from sandbox.teach.page import Fact, Node, Section, Table
from sandbox.teach.page_style import DARK, LIGHT
from sandbox.teach.plot import Mark, Rule, Series, phase_bars, time_plot

pytestmark = pytest.mark.requires("chromium")

# The browser reads commands from descriptor 3 and answers on 4.
START = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
         "os.execvp(sys.argv[3], sys.argv[3:])")
FLAGS = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run"]


class Browser:
    """One tab. :attr:`events` are what it told unasked."""

    def __init__(self, profile: Path) -> None:
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        # Above 4, so that putting the first in its place does not close the second.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 5) for end in (commands, answers)]
        flags = [*FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        self._process = subprocess.Popen([sys.executable, "-c", START, *map(str, given), "chromium", *flags],
                                         pass_fds=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (commands, answers, *given):
            os.close(end)
        self._rest = b""
        self._calls = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        tab = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        command = {"id": self._calls, "method": method, "params": parameters} | self._session
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while (message := self._read()).get("id") != command["id"]:
            self.events.append(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read

    def show(self, path: Path, *, scheme: str = "light", width: int = 1280, media: str = "") -> None:
        """Loads a page, with a size of the window and a colour scheme."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 800)
        self("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events = []
        self("Page.navigate", url=path.as_uri())
        while not self.told("Page.loadEventFired"):
            self.events.append(self._read())

    def told(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def value(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def close(self) -> None:
        self._session = {}
        self("Browser.close")
        self._process.wait(30)
        os.close(self._out)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a table and a command that are too wide for a telephone, and a word that is."""
    series = [Series(kind, tuple((tenth / 10, tenth * 2.0**22) for tenth in range(9)), kind)
              for kind in ("cgroupfs", "systemd")]
    plot = time_plot("Memory", "bytes", series, rules=[Rule("memory.max", 2.0**25)],
                     marks=[Mark("oom_kill, systemd", 0.8, "oom_kill")])
    rows = tuple((f"wish {row}", *["memory.max = 67108864"] * 6) for row in range(5))
    tree = page.tree("systemd", Node("/", "systemd", children=(Node("x" * 90 + ".scope", "systemd", "1 MiB"),)))
    text = page.page("Two managers", "What each is told.", [
        Section("Told", (page.table(Table("What each is told", ("wish", *"abcdef"), rows, ("different",) * 5)),)),
        Section("While it ran", (page.figure(plot, "9 samples"), page.columns(tree, tree))),
        Section("Launch", (page.figure(phase_bars("Phases", [("systemd", [("create", 0.1), ("exec", 0.2)])]), "1"),))],
        opening=(page.code("sandbox compare " + "--flag value " * 20), page.facts([Fact("systemd", "3 ms")])),
        footer="Linux")
    made = tmp_path_factory.mktemp("page") / "page.html"
    made.write_text(text)
    return made


def test_nothing_is_complained_of_and_nothing_fetched(browser: Browser, path: Path) -> None:
    browser.show(path)
    assert browser.told("Log.entryAdded") == []
    assert browser.told("Runtime.consoleAPICalled") == browser.told("Runtime.exceptionThrown") == []
    assert [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")] == [path.as_uri()]


@pytest.mark.parametrize("width", [320, 375, 768, 1280, 2560])
def test_it_fits_the_window(browser: Browser, path: Path, width: int) -> None:
    browser.show(path, width=width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    # What sticks out of the picture could not be seen: labels of ticks, marks and limits.
    outside = """[...document.querySelectorAll('.plot > svg text')].map(one => [one, one.getBoundingClientRect()])
        .filter(([one, box]) => box.width && (box.left < 0 || box.right > innerWidth))
        .map(([one]) => one.textContent)"""
    assert browser.value(outside) == []


@pytest.mark.parametrize(("scheme", "media", "colours"), [("light", "", LIGHT), ("dark", "", DARK),
                                                          ("dark", "print", LIGHT)])
def test_colours_follow_the_scheme_and_paper_is_white(browser: Browser, path: Path, scheme: str, media: str,
                                                       colours: dict[str, str]) -> None:
    browser.show(path, scheme=scheme, media=media)
    red, green, blue = bytes.fromhex(colours["systemd"][1:])
    drawn = browser.value("getComputedStyle(document.querySelector('.plot .k-systemd .line')).stroke")
    assert drawn == f"rgb({red}, {green}, {blue})"
    red, green, blue = bytes.fromhex(colours["paper"][1:])
    assert browser.value("getComputedStyle(document.documentElement).backgroundColor") == f"rgb({red}, {green}, {blue})"


def test_the_keyboard_goes_from_top_to_bottom_and_scrolls_what_is_wide(browser: Browser, path: Path) -> None:
    browser.show(path, width=375)
    browser("Page.bringToFront")
    stops = []
    for _ in range(6):
        browser.press("Tab")
        stops.append(browser.value("document.activeElement.getAttribute('aria-label') || "
                                   "document.activeElement.textContent"))
        assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert stops == ["Skip to the content", "Told", "While it ran", "Launch", "Command", "What each is told"]
    assert browser.value("document.activeElement.scrollWidth > document.activeElement.clientWidth")
    browser.press("ArrowRight")
    scrolled = """new Promise(done => { const box = document.activeElement;
        const look = () => box.scrollLeft > 0 ? done(true) : requestAnimationFrame(look); look(); })"""
    assert browser("Runtime.evaluate", expression=scrolled, awaitPromise=True)["result"]["value"]


def test_the_skip_link_leads_to_the_content(browser: Browser, path: Path) -> None:
    browser.show(path)
    browser("Page.bringToFront")
    browser.press("Tab")
    assert browser.value("document.activeElement.getBoundingClientRect().top") >= 0
    browser.press("Enter")
    assert browser.value("document.activeElement.id") == "main"


def test_a_screen_reader_finds_the_figures(browser: Browser, path: Path) -> None:
    browser.show(path)
    nodes = [node for node in browser("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]

    def named(role: str) -> list[str]:
        return [node["name"]["value"] for node in nodes if node["role"]["value"] == role]

    assert named("image") == ["Memory", "Phases"]
    described = [node["description"]["value"] for node in nodes if node["role"]["value"] == "image"]
    assert "cgroupfs rises to 32.0 MiB, the limit memory.max, at 800 ms" in described[0]
    assert named("heading") == ["Two managers", "Told", "While it ran", "Launch"]
    assert named("table") == ["What each is told ≠ different 5"]
    assert named("rowheader")[0] == "different: wish 0"
    assert {*named("region")} >= {"Told", "What each is told", "While it ran", "Launch"}
