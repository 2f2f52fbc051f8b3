"""A real JupyterLab and a real Chromium for the tests that look at what a person sees.

`lab` is one server per session, in temporary folders and a process group of its own; `lab.open_notebook(cells)` writes
a notebook, opens it in a fresh page and gives a `Page` to run cells and wait for what they show.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

READY_WITHIN = 60.0
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
#: What Lab itself says on the console and is no fault of ours.
_NOT_OURS = ("favicon", "/api/me", "workspace", "lab/api/news", "Source map", "pypi", "ResizeObserver loop")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
    # Last of all: Playwright keeps an event loop running in this thread, where no other test could start its own.
    items.sort(key=lambda item: here in item.path.parents)


def _chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail("no Chromium on PATH: `apt-get install chromium`, or `playwright install chromium` and link it")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Page:
    """A notebook in the browser. `playwright` is the page itself for what is not wrapped here."""

    def __init__(self, playwright_page: Any, path: Path, deadline: float = 60.0) -> None:
        self.playwright = playwright_page
        self.path = path
        self.deadline = deadline
        self.errors: list[str] = []
        playwright_page.on("console", self._heard)
        playwright_page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _heard(self, message: Any) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(word in text for word in _NOT_OURS):
            self.errors.append(text)

    def until(self, condition: Callable[[], Any], what: str, timeout: float | None = None) -> Any:
        """The first true value of *condition*, asked ten times a second; fails with *what* at the deadline."""
        end = time.monotonic() + (timeout or self.deadline)
        while True:
            if value := condition():
                return value
            if time.monotonic() > end:
                pytest.fail(f"not in {timeout or self.deadline:g} s: {what}; console: {self.errors[-5:]}")
            self.playwright.wait_for_timeout(100)

    def cell(self, index: int) -> Any:
        """The code cell at *index*, counted from 0 over all cells."""
        return self.playwright.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)

    def run(self, index: int, timeout: float | None = None) -> None:
        """Run the cell and wait until it is done; fails with its error if it raised one."""
        before = self._prompt(index)
        self.cell(index).locator(".jp-InputArea-editor").click()
        self.playwright.keyboard.press("Control+Enter")
        self.until(lambda: self._prompt(index) not in (before, "[*]:", "[ ]:"), f"cell {index} to finish", timeout)
        error = self.cell(index).locator(
            "[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-output.jp-mod-error"
        )
        texts = [text for text in error.all_inner_texts() if "Error" in text or "Traceback" in text]
        assert not texts, f"cell {index}: {texts[0][-2000:]}"

    def start(self, index: int) -> None:
        """Run the cell and do not wait."""
        self.cell(index).locator(".jp-InputArea-editor").click()
        self.playwright.keyboard.press("Control+Enter")

    def run_all(self, timeout: float | None = None) -> None:
        """Run every code cell, in order."""
        for index in range(len(json.loads(self.path.read_text())["cells"])):
            self.run(index, timeout)

    def _prompt(self, index: int) -> str:
        return str(self.cell(index).locator(".jp-InputPrompt").first.inner_text()).strip()

    def output(self, index: int) -> str:
        """The text of the cell's output."""
        return "\n".join(self.cell(index).locator(".jp-OutputArea-output").all_inner_texts())

    def wait_for_output(self, index: int, text: str, timeout: float | None = None) -> str:
        """Wait until the cell's output contains *text*; gives the whole output."""
        self.until(lambda: text in self.output(index), f"{text!r} in the output of cell {index}", timeout)
        return self.output(index)

    def cytoscape(self, body: str, nth: int = 0) -> Any:
        """What the JavaScript function *body* returns, given `cy`, the nth live graph; None before there is one."""
        return self.playwright.evaluate(
            f"(n) => {{ const cy = document.querySelectorAll('.custom-widget')[n]?._cyreg?.cy;"
            f" return cy ? (({body})(cy)) : null; }}",
            nth,
        )

    def theme(self, name: str) -> None:
        """Switch to `JupyterLab Dark` or `JupyterLab Light`."""
        self.playwright.evaluate(
            "(name) => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name
        )
        light = "false" if "Dark" in name else "true"
        self.until(
            lambda: self.playwright.evaluate("() => document.body.dataset.jpThemeLight") == light, f"theme {name}"
        )
        self.until(lambda: self.playwright.locator("#jupyterlab-splash").count() == 0, "the splash to go")

    def restart_kernel(self) -> None:
        """Restart the notebook's kernel without asking."""
        self.playwright.evaluate(
            """async () => {
              const context = window.jupyterapp.shell.currentWidget.sessionContext;
              await context.session.kernel.restart();
            }"""
        )

    def save(self) -> dict[str, Any]:
        """Save the notebook; gives it as it is on disk."""
        self.playwright.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        return dict(json.loads(self.path.read_text()))

    def screenshot(self, path: Path) -> Path:
        """A picture of the page."""
        self.playwright.screenshot(path=str(path))
        return path


class Lab:
    """A running JupyterLab and a browser. `root` is its folder; `env` its environment."""

    def __init__(self, url: str, token: str, root: Path, browser: Any, env: dict[str, str]) -> None:
        self.url, self.token, self.root, self.browser, self.env = url, token, root, browser, env
        self._pages: list[Any] = []
        self._count = 0

    def open_notebook(self, cells: list[str] | Path, *, size: tuple[int, int] = (1280, 900)) -> Page:
        """Open a notebook of these code cells (or a copy of that file) and wait for its kernel."""
        self._count += 1
        path = self.root / f"notebook{self._count}.ipynb"
        if isinstance(cells, Path):
            shutil.copy(cells, path)
        else:
            path.write_text(json.dumps(_notebook(cells)))
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]})
        self._pages.append(context)
        page = Page(context.new_page(), path)
        page.playwright.goto(f"{self.url}/lab/workspaces/w{self._count}/tree/{path.name}?reset&token={self.token}")
        page.playwright.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.until(
            lambda: (
                page.playwright.evaluate(
                    "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
                )
                == "idle"
            ),
            "the kernel to be ready",
        )
        return page

    def close_pages(self) -> None:
        """Close every page and shut down the kernels."""
        for context in self._pages:
            context.close()
        self._pages = []
        for session in json.loads(self._ask("GET", "/api/sessions") or "[]"):
            self._ask("DELETE", f"/api/sessions/{session['id']}")

    def _ask(self, method: str, path: str) -> str:
        request = urllib.request.Request(
            f"{self.url}{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())


def _notebook(cells: list[str]) -> dict[str, Any]:
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {"cell_type": "code", "id": f"c{i}", "source": s, "metadata": {}, "outputs": [], "execution_count": None}
            for i, s in enumerate(cells)
        ],
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started: its process group, asked first, then made."""
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
        except (ProcessLookupError, PermissionError):
            return
        except subprocess.TimeoutExpired:
            continue


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    executable = _chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, timeout=60_000)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Lab]:
    """JupyterLab of this Python, on the loopback, with temporary folders for everything."""
    base = tmp_path_factory.mktemp("lab")
    root = base / "work"
    root.mkdir()
    news = base / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    port, token = _free_port(), os.urandom(16).hex()
    repository = Path(__file__).parents[2]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in (str(repository), os.environ.get("PYTHONPATH")) if p),
        "JUPYTER_CONFIG_DIR": str(base / "config"),
        "JUPYTER_DATA_DIR": str(base / "data"),
        "JUPYTER_RUNTIME_DIR": str(base / "run"),
        "JUPYTERLAB_WORKSPACES_DIR": str(base / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(base / "settings"),
        "JUPYTERFLOW_DIR": str(base / "jupyterflow"),
        "IPYTHONDIR": str(base / "ipython"),
        "JUPYTER_TOKEN": token,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"),
        *(f"--ServerApp.root_dir={root}", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"),
        *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    with (base / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    lab = Lab(url, token, root, chromium, env)
    try:
        end = time.monotonic() + READY_WITHIN
        while True:
            try:
                lab._ask("GET", "/api/status")
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"JupyterLab did not start: {(base / 'lab.log').read_text()[-2000:]}")
                time.sleep(0.2)
        yield lab
    finally:
        _end(process)


@pytest.fixture
def lab(lab_server: Lab) -> Iterator[Lab]:
    """The session's JupyterLab; pages and kernels are closed after each test."""
    yield lab_server
    lab_server.close_pages()
