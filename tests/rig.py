"""A real JupyterLab in a real Chromium, as a person has them; every wait is for a condition."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import sync_playwright

TOKEN = "rig-token"
CHROMIUM = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
KERNEL_EXEC = """async code => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const run = kernel.requestExecute({code, store_history: false});
  let out = '';
  run.onIOPub = m => { if (m.header.msg_type === 'stream') out += m.content.text;
                       if (m.header.msg_type === 'error') out += m.content.traceback.join('\\n'); };
  await run.done;
  return out; }"""
READY = """() => { const w = jupyterapp?.shell?.currentWidget;
  return w?.sessionContext?.isReady && w.sessionContext.session?.kernel?.status === 'idle'; }"""
# Braces: Playwright waits for a promise that is returned, and that one ends only with the last cell.
RUN_ALL = """() => { window.rigDone = false;
  jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.rigDone = true; }); }"""


class Lab:
    """JupyterLab on loopback with every folder its own; ``kernels``: kernel name → Python."""

    def __init__(self, folder: Path, kernels: dict[str, Path]) -> None:
        self.folder, self.root = folder, folder / "root"
        self.root.mkdir()
        names = (
            "HOME",
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
        self.environment = os.environ | {name: str(folder / name.lower()) for name in names}
        for name in names:
            Path(self.environment[name]).mkdir()
        for name, python in kernels.items():
            spec = Path(self.environment["JUPYTER_DATA_DIR"]) / "kernels" / name
            spec.mkdir(parents=True)
            argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))
        config = Path(self.environment["JUPYTER_CONFIG_DIR"]) / "labconfig"
        config.mkdir()
        (config / "page_config.json").write_text(
            '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'
        )

    def __enter__(self) -> Lab:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = (self.folder / "lab.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
             f"--IdentityProvider.token={TOKEN}", "--ServerApp.allow_root=True", f"--ServerApp.root_dir={self.root}",
             "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("GET", "/api/status")
                return self
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None and time.monotonic() < deadline, (
                    self.folder / "lab.log"
                ).read_text()
                time.sleep(0.1)

    def ask(self, method: str, path: str) -> Any:
        """The JSON of the server's API."""
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def __exit__(self, *_: object) -> None:
        for kernel in self.ask("GET", "/api/kernels"):  # each is a process group of its own
            self.ask("DELETE", f"/api/kernels/{kernel['id']}")
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Browser:
    """Chromium with a profile of its own."""

    def __enter__(self) -> Browser:
        self.profile = tempfile.mkdtemp()
        self.playwright = sync_playwright().start()
        chrome = shutil.which(os.environ.get("CHROME") or "chromium")
        assert chrome, "no Chromium; make test installs it"
        self.context = self.playwright.chromium.launch_persistent_context(
            self.profile,
            executable_path=chrome,
            headless=True,
            args=CHROMIUM.split(),
            viewport={"width": 1280, "height": 1100},
        )
        self.context.set_default_timeout(60_000)
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        self.playwright.stop()
        shutil.rmtree(self.profile, ignore_errors=True)


class Notebook:
    """A notebook that is open in JupyterLab; console errors and requests to other hosts are collected."""

    @classmethod
    def open(
        cls, lab: Lab, browser: Browser, content: Path | list[str], *, kernel: str = "python3", wait: bool = True
    ) -> Notebook:
        """Open a notebook file, or a new one with these cells."""
        book = (
            nbformat.read(content, 4)
            if isinstance(content, Path)
            else nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in content])
        )
        book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        self = cls()
        self.lab, self.path = lab, lab.root / f"book-{len(list(lab.root.iterdir()))}.ipynb"
        nbformat.write(book, self.path)
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page = browser.context.new_page()
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        here = urlsplit(lab.url).netloc
        self.page.on(
            "request",
            lambda r: (
                self.foreign.append(r.url)
                if urlsplit(r.url).scheme.startswith("http") and urlsplit(r.url).netloc != here
                else None
            ),
        )
        self.page.goto(f"{lab.url}/lab/tree/{self.path.name}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        if wait:
            self.page.wait_for_function(READY)
        return self

    def run_all(self, timeout: float = 120) -> None:
        """Run every cell and wait until the last has ended."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function("() => window.rigDone", timeout=timeout * 1000)

    def kernel(self, code: str) -> str:
        """What ``code`` prints in the notebook's kernel."""
        found: str = self.page.evaluate(KERNEL_EXEC, code)
        return found.strip()

    def close(self) -> None:
        """Close the page and end its kernel."""
        for session in self.lab.ask("GET", "/api/sessions"):
            if session["path"] == self.path.name:
                self.lab.ask("DELETE", f"/api/sessions/{session['id']}")
        self.page.close()
