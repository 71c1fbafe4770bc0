"""A real Jupyter server on loopback, as a hub starts it: with a token and below ``/user/x/``, and every folder its own."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
# Asks for nothing but to refuse those who say so: what a hub's authorizer would decide by its own rules.
_CONFIG = """
from jupyter_server.auth import Authorizer

class Refusing(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return (action, resource) != ("read", handler.request.headers.get("X-Refuse"))

c.ServerApp.authorizer_class = Refusing
c.ServerApp.allow_root = True
c.ServerApp.open_browser = False
c.ServerApp.base_url = "/user/x/"
c.AsyncIOLoopKernelRestarter.time_to_dead = 0.5
"""


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)
    return found


class JupyterServer:
    """``python -m jupyter_server`` of the environment that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.runtime = folder / "run"
        self._connections = folder / "jupyter-run"
        self.token = secrets.token_hex(16)
        for made in ("config", "root", "data/kernels/here"):
            (folder / made).mkdir(parents=True)
        (folder / "config" / "jupyter_server_config.py").write_text(_CONFIG)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "here", "language": "python"}
        (folder / "data" / "kernels" / "here" / "kernel.json").write_text(json.dumps(spec))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.host = f"http://127.0.0.1:{port}"
        self.url = f"{self.host}/user/x/"
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
                 f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={folder / 'root'}"],
                env=os.environ | {
                    "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data"),
                    "JUPYTER_RUNTIME_DIR": str(self._connections), "LLAMATELEMETRY_RUNTIME_DIR": str(self.runtime),
                    # Where the wheel's data files lie in an environment.
                    "JUPYTER_CONFIG_PATH": str(REPO / "jupyter-config"),
                },
                cwd=folder / "root", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            return self.get("api/status")[0] == 200
        except OSError:
            return False

    def stop(self) -> None:
        for kernel in self.get("api/kernels")[1]:
            self.ask("DELETE", f"api/kernels/{kernel['id']}")
        self._process.terminate()
        self._process.wait(20)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """``(status, JSON)``; with ``headers`` those alone, without the token."""
        headers = {"Authorization": f"token {self.token}"} if headers is None else headers
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())  # a page for people would fail here

    def get(self, path: str) -> tuple[int, Any]:
        return self.ask("GET", path)

    def notebook(self, path: str) -> str:
        """Open a notebook as a page does; its kernel's id."""
        wanted = {"name": path, "path": path, "type": "notebook", "kernel": {"name": "here"}}
        status, session = self.ask("POST", "api/sessions", wanted)
        assert status == 201, session
        return str(session["kernel"]["id"])

    def run(self, kernel_id: str, code: str, *, wait: bool = True) -> None:
        """Run ``code`` in that kernel; without ``wait`` return as soon as it was sent."""
        from jupyter_client import BlockingKernelClient

        client = BlockingKernelClient(connection_file=str(self._connections / f"kernel-{kernel_id}.json"))
        client.load_connection_file()
        client.start_channels(hb=False)  # a kernel that is still starting has no heartbeat, and would be called dead
        try:
            client.wait_for_ready(timeout=60)
            sent = client.execute(code)
            if wait:
                reply = until(lambda: _reply(client, sent))
                assert reply["status"] == "ok", reply
        finally:
            client.stop_channels()

    def entry(self, kernel_id: str) -> dict[str, Any]:
        """What the extension tells of the kernel that the server has under this id."""
        status, told = self.get("llamatelemetry/kernels")
        assert status == 200, told
        return next(one for one in told["kernels"] if one["id"] == kernel_id)


def _reply(client: Any, sent: str) -> Any:
    message = client.get_shell_msg(timeout=60)
    return message["content"] if message["parent_header"].get("msg_id") == sent else None
