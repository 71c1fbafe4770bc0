"""A real JupyterLab in a real Chromium, as a person has them: start both, open a notebook, run it, look at it.

Every wait is for a condition. Playwright keeps an event loop running in the thread of the test, so ``asyncio.run`` and
nbclient fail there: :func:`execute` runs a notebook headless in a process of its own.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page, Request, WebSocket

_TIMEOUT_MS = 60_000
_CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_READY = """() => { const w = window.jupyterapp?.shell?.currentWidget;
    return Boolean(w?.sessionContext?.isReady && w.sessionContext.session?.kernel?.status === 'idle'); }"""
# Braces: Playwright waits for a promise that is returned, without a limit of ours, and this one ends with the last cell.
_RUN_ALL = """() => { window.rigRun = 'running'; window.jupyterapp.commands.execute('notebook:run-all-cells').then(
    () => { window.rigRun = 'done'; }, e => { window.rigRun = 'failed: ' + e; }); }"""
_KERNEL = """async code => { const k = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const f = k.requestExecute({code, store_history: false}); let out = '';
    f.onIOPub = m => { if (m.header.msg_type === 'stream') out += m.content.text;
                       if (m.header.msg_type === 'error') out += m.content.traceback.join('\\n'); };
    const reply = await f.done; return {status: reply.content.status, out}; }"""


# ------------------------------------------------------------------------------------------------------------ notebooks


def write_notebook(path: Path, content: Path | Sequence[str], kernel: str = "python3") -> Path:
    """A notebook file, from another one (outputs kept) or from the sources of its cells; ``md:`` begins a Markdown cell."""
    if isinstance(content, Path):
        book = nbformat.read(content, as_version=4)
    else:
        book = nbformat.v4.new_notebook()
        for source in content:
            markdown = source.startswith("md:")
            new = nbformat.v4.new_markdown_cell if markdown else nbformat.v4.new_code_cell
            book.cells.append(new(source.removeprefix("md:")))
    # Without the name of an installed kernel Lab asks for one and waits.
    book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


def execute(
    source: Path | Sequence[str], target: Path, *, python: Path | str = sys.executable, timeout_s: int = 240
) -> Any:
    """Run a notebook headless in ``python``'s kernel and return it; ``target`` is the executed file.

    Raises ``AssertionError`` with the kernel's message when a cell fails.
    """
    write_notebook(target, source)
    # A kernel of this run alone: "python3" is whatever the user has registered under that name.
    share = target.parent / "share-jupyter"
    _write_kernelspec(share / "kernels" / "rig", Path(python))
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", "--kernel_name=rig", f"--timeout={timeout_s}", str(target)],
        env=os.environ | {"JUPYTER_PATH": str(share), "LLAMATELEMETRY_BATCH": "1"},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s + 60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return nbformat.read(target, as_version=4)


def to_html(notebook: Path) -> Path:
    """nbconvert's HTML of a notebook as it stands, asking no other host for anything but its widgets' manager."""
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level=ERROR", "--HTMLExporter.mathjax_url=",
         "--HTMLExporter.require_js_url=", str(notebook)],
        check=True, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    return notebook.with_suffix(".html")


def _write_kernelspec(folder: Path, python: Path) -> None:
    spec = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": folder.name,
        "language": "python",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.json").write_text(json.dumps(spec))


# ----------------------------------------------------------------------------------------------------------- JupyterLab


class Lab:
    """JupyterLab on loopback with every folder its own; ``kernels``: kernel name → Python. ``with Lab(…) as lab``.

    ``extensions``: an environment whose widget extensions replace those of JupyterLab's own environment. A front end of
    anywidget 0.11 refuses the widgets of a kernel with 0.9 ("version ~0.9.* is not registered").
    """

    def __init__(self, folder: Path, kernels: Mapping[str, Path], extensions: Path | None = None) -> None:
        self.folder, self.root = folder, folder / "root"
        self.token = secrets.token_hex(16)
        self.url = ""
        names = (
            "HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR",
        )  # fmt: skip
        self._environment = os.environ | {name: str(folder / name.lower()) for name in names}
        for made in (self.root, *(Path(self._environment[name]) for name in names)):
            made.mkdir(parents=True)
        for name, python in kernels.items():
            _write_kernelspec(Path(self._environment["JUPYTER_DATA_DIR"]) / "kernels" / name, python)
        if extensions is not None:
            preferred = folder / "preferred"  # JUPYTER_PATH comes before the environment, JUPYTER_DATA_DIR after it
            preferred.mkdir()
            (preferred / "labextensions").symlink_to(extensions / "share" / "jupyter" / "labextensions")
            self._environment["JUPYTER_PATH"] = str(preferred)
        # The news toast lies over the notebook and asks a question; --LabApp.news_url= does not stop it.
        config = Path(self._environment["JUPYTER_CONFIG_DIR"]) / "labconfig"
        config.mkdir()
        disabled = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
        (config / "page_config.json").write_text(json.dumps(disabled))

    def __enter__(self) -> Lab:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with (self.folder / "lab.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
                 f"--IdentityProvider.token={self.token}", "--ServerApp.allow_root=True", f"--ServerApp.root_dir={self.root}",
                 "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
                 # Notebook 7 is another page of the same server.
                 "--JupyterNotebookApp.expose_app_in_browser=True"],
                env=self._environment, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 90
        while True:
            try:
                self.ask("GET", "/api/status")
                return self
            except OSError as error:  # not listening yet
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    raise RuntimeError(f"JupyterLab did not start ({error}):\n{self.log()}") from error
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        try:
            # Each kernel is a process group of its own: ending the server's misses it.
            for kernel in self.ask("GET", "/api/kernels"):
                self.ask("DELETE", f"/api/kernels/{kernel['id']}")
        finally:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ask(self, method: str, path: str) -> Any:
        """The JSON of the server's API; ``None`` for an empty answer and for what is gone already (404)."""
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        return json.loads(body) if body else None

    def log(self, last: int = 40) -> str:
        """The newest lines that the server wrote."""
        return "\n".join((self.folder / "lab.log").read_text(errors="replace").splitlines()[-last:])


# -------------------------------------------------------------------------------------------------------------- Chromium


def chromium() -> str:
    """The browser's path: ``$CHROME``, else a Chromium on PATH."""
    for name in (os.environ.get("CHROME"), "chromium", "chromium-browser", "google-chrome"):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError("no Chromium found: make test installs Debian's, CHROME=path names another")


class Browser:
    """A headless Chromium with a profile of its own; ``with Browser() as browser``."""

    def __enter__(self) -> Browser:
        from playwright.sync_api import sync_playwright

        self._profile = tempfile.mkdtemp(prefix="llamatelemetry-chromium-")
        self._playwright = sync_playwright().start()
        self.context = self._playwright.chromium.launch_persistent_context(
            self._profile, executable_path=chromium(), headless=True, args=list(_CHROMIUM_FLAGS),
            viewport={"width": 1280, "height": 1100}, env=os.environ | {"HOME": self._profile},
        )  # fmt: skip
        self.context.set_default_timeout(_TIMEOUT_MS)
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        self._playwright.stop()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open_file(self, path: Path) -> Watched:
        """A file of this machine, opened with the network off: requests to hosts fail and are listed in ``foreign``."""
        watched = Watched(self.context.new_page(), own_host=None)
        session = self.context.new_cdp_session(watched.page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})  # fmt: skip
        watched.page.goto(path.resolve().as_uri(), wait_until="load")
        return watched


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The origin of a web server on loopback that hands out the files of ``folder``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Watched:
    """A page and what went wrong on it: ``errors`` (console and uncaught) and ``foreign`` (requests to other hosts)."""

    def __init__(self, page: Page, own_host: str | None) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        #: Bytes that the kernel's websocket brought; it is not compressed.
        self.received_bytes = 0
        self._own_host = own_host
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", self._on_request)
        page.on("websocket", self._on_websocket)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self._own_host:
            self.foreign.append(request.url)

    def _on_websocket(self, websocket: WebSocket) -> None:
        if "/channels" in websocket.url:

            def count(payload: str | bytes) -> None:
                self.received_bytes += len(payload.encode() if isinstance(payload, str) else payload)

            websocket.on("framereceived", count)

    def close(self) -> None:
        """Close the page."""
        self.page.close()


# ------------------------------------------------------------------------------------------------------ an open notebook


class Notebook(Watched):
    """A notebook that is open in JupyterLab. Cells are counted from 0, Markdown ones included."""

    def __init__(self, lab: Lab, page: Page, path: Path) -> None:
        super().__init__(page, urlsplit(lab.url).netloc)
        self.lab = lab
        self.path = path

    @classmethod
    def open(
        cls,
        lab: Lab,
        browser: Browser,
        content: Path | Sequence[str],
        *,
        kernel: str = "python3",
        wait: bool = True,
        app: Literal["lab", "notebook"] = "lab",
    ) -> Notebook:
        """Open a notebook file, or a new one with these cells; ``wait`` is for its kernel to be idle.

        ``app="notebook"``: in Notebook 7, where what goes by Lab's commands (:meth:`run_all` …) works the same.
        """
        stem = content.stem if isinstance(content, Path) else "cells"
        path = write_notebook(lab.root / f"{stem}-{secrets.token_hex(4)}.ipynb", content, kernel)
        self = cls(lab, browser.context.new_page(), path)
        where, option = ("lab/tree", "&reset") if app == "lab" else ("notebooks", "")
        self.page.goto(f"{lab.url}/{where}/{path.name}?token={lab.token}{option}")
        self._wait_open(wait)
        return self

    def _wait_open(self, kernel: bool) -> None:
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")  # of an empty notebook, until the file is read
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.isReady")
        if kernel:
            self.page.wait_for_function(_READY)

    def reload(self) -> None:
        """Reload the page; the kernel goes on."""
        self.page.reload()
        self._wait_open(kernel=True)

    def run_all(self, timeout: float = 120, *, wait: bool = True) -> None:
        """Run every cell, a failing one ends the run; returns when the last has ended (or at once, then :meth:`wait_done`)."""
        self.page.evaluate(_RUN_ALL)
        if wait:
            self.wait_done(timeout)

    def run_cell(self, index: int) -> None:
        """Run one cell as a person does, with what the page sends along; returns when it has ended."""
        self.page.evaluate(
            """async i => { const book = jupyterapp.shell.currentWidget.content; book.activeCellIndex = i; book.deselectAll();
            await jupyterapp.commands.execute('notebook:run-cell'); }""",
            index,
        )

    def wait_done(self, timeout: float = 120) -> None:
        """Wait for the run that :meth:`run_all` began."""
        self.page.wait_for_function("() => window.rigRun !== 'running'", timeout=timeout * 1000)
        outcome = self.page.evaluate("() => window.rigRun")
        assert outcome == "done", outcome

    def kernel(self, code: str) -> str:
        """What ``code`` prints in the notebook's own kernel, without a cell; ``AssertionError`` when it fails."""
        reply = self.page.evaluate(_KERNEL, code)
        assert reply["status"] == "ok", reply["out"]
        return str(reply["out"]).strip()

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Per cell the outputs in the notebook's model, as they would be saved."""
        model = "window.jupyterapp.shell.currentWidget.content.model"
        return list(self.page.evaluate(f"() => {model}.toJSON().cells.map(c => c.outputs ?? [])"))

    def failures(self) -> list[str]:
        """Name and message of every error among the outputs."""
        found = [one for cell in self.outputs() for one in cell if one["output_type"] == "error"]
        return [f"{one['ename']}: {one['evalue']}" for one in found]

    def output(self, index: int) -> Locator:
        """The outputs of a cell as the page shows them, scrolled into view."""
        self.page.evaluate("async i => { await window.jupyterapp.shell.currentWidget.content.scrollToItem(i); }", index)
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputArea")

    def set_theme(self, name: str) -> None:
        """``JupyterLab Light`` or ``JupyterLab Dark``; returns when it is on."""
        self.page.evaluate(
            "async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", name
        )
        light = "false" if "Dark" in name else "true"
        self.page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=light)

    def save(self) -> Path:
        """Save it as Lab does; the file's path."""
        self.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.save(); }")
        return self.path

    def close(self) -> None:
        """Close the page and end its kernel."""
        for session in self.lab.ask("GET", "/api/sessions"):
            if session["path"] == self.path.name:
                self.lab.ask("DELETE", f"/api/sessions/{session['id']}")
        super().close()
