"""What ``%llama doctor`` looks at: each check names what it saw, and the one thing to type where something is wrong.

Checks only read. None asks the network unless told to, none starts anything but an engine's own ``--help`` or
``--list-devices``, and one that fails is a row of its own, never the end of the others.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .. import environment
from ..errors import LlamaError
from ..server import engines, runtime
from ..server.machine import Machine
from ..units import size

if TYPE_CHECKING:
    from ..session import Session
    from ..values import Runtime

Status = Literal["ok", "warn", "missing"]

_DISTRIBUTION = "llamatelemetry-jupyter"
_EXTENSION = "llamatelemetry_jupyter.jupyter_server"
_PER_ROW = 4  # packages in a row of the table
#: Where models and engines come from; the package index is the one that pip is set up with.
_HOSTS = ("huggingface.co", "github.com")
_ONLINE_S = 3.0
#: A model of 7 billion weights at 4 bits is 4 GiB: less room than that is worth a word.
_LITTLE_BYTES = 5 << 30
_STATE_FILE = re.compile(r"(\d+)-(\d+)\.[\w-]+\.server\.json")


@dataclass(frozen=True, slots=True)
class Check:
    """One row: ``status`` is a word, ``fix`` what to type (empty when nothing is wrong)."""

    topic: str
    status: Status
    what: str
    fix: str = ""


def run_all(session: Session | None, *, online: bool = False) -> list[Check]:
    """Every check, in the order in which they are read."""
    machine = Machine.here()
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        lambda: _engines(machine),
        lambda: _gpus(machine),
        lambda: _system(machine),
        _packages,
        _server_extension,
        _loopback,
        _folders,
        _left_servers,
        lambda: _session(session),
        lambda: _spans(session),
        lambda: _network(online),
    )
    found: list[Check] = []
    for check in checks:
        try:
            found += check()
        except (OSError, LlamaError) as error:
            found.append(Check("doctor", "warn", f"a check failed: {error}", getattr(error, "hint", None) or ""))
    return found


def _engines(machine: Machine) -> Iterator[Check]:
    used: Runtime | None = None
    for candidate in runtime.candidates():
        try:
            found = candidate.find()
        except LlamaError as error:
            # It would be chosen, and starting it would fail: a later one is not taken instead without a word.
            yield Check("engine", "warn", f"{candidate.where}: {error}", error.hint or "")
            if used is None:
                return
            continue
        if found is None:
            continue
        version = found.version or "llama-server"
        where = candidate.where if version in candidate.where else f"{candidate.where}: {version}"
        if used is None:
            used = found
            yield Check("engine", "ok", f"{where} (used: the first in the order)")
            yield from _abilities(found, machine)
        else:
            yield Check("engine", "ok", f"{where} (not used: %llama start --engine {candidate.name or found.argv[0]})")
    if used is None:
        yield Check(
            "engine", "missing", "no llama-server on PATH, no xllamacpp, none installed", "%llama install --engine cpu"
        )
    for build in engines.installed():
        if build.problem:
            yield Check("engine", "warn", f"{build.id}: {build.problem}", f"!rm -r {build.folder}")
        elif not build.verified:
            hashes = ", ".join(origin.sha256[:16] + "…" for origin in build.origins)
            yield Check("engine", "ok", f"{build.id} is unverified: SHA-256 {hashes} was recorded when it came")


def _abilities(used: Runtime, machine: Machine) -> Iterator[Check]:
    try:
        seen = runtime.devices(used)
    except LlamaError as error:
        yield Check("backends", "warn", str(error), error.hint or "")
        return
    tools = ", ".join(used.tools) or "none"
    said = f"{', '.join(seen) or 'CPU only'} · {len(used.features)} settings · tools: {tools}"
    if machine.gpus and not seen:
        yield Check("backends", "warn", f"{said}; the GPU would not be used", "%llama install --engine cuda")
    else:
        yield Check("backends", "ok", said)


def _gpus(machine: Machine) -> Iterator[Check]:
    for gpu in machine.gpus:
        memory = f"{size(gpu.free_bytes)} free of {size(gpu.total_bytes)}" if gpu.free_bytes is not None else "n/a"
        yield Check("GPU", "ok", f"{gpu.name}, {memory}, compute capability {gpu.compute_capability or 'n/a'}")
    if machine.gpus:
        yield Check("driver", "ok", f"NVIDIA {machine.driver or 'n/a'}")
    elif any(os.path.exists(path) for path in ("/dev/nvidia0", "/dev/nvidiactl", "/proc/driver/nvidia/version")):
        yield Check("GPU", "warn", "there is an NVIDIA device, but its driver does not answer", "!nvidia-smi")
    else:
        where = environment.detect().host
        switch = "; on Kaggle: Settings → Accelerator" if where == "kaggle" else ""
        switch = "; on Colab: Runtime → Change runtime type" if where == "colab" else switch
        yield Check("GPU", "ok", f"none: models run on the CPU{switch}")


def _system(machine: Machine) -> Iterator[Check]:
    library = f"glibc {machine.glibc}" if machine.glibc else "no glibc"
    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPUs"
    yield Check(
        "system", "ok", f"{platform.system()} on {machine.arch}, {library}, {cores}, Python {platform.python_version()}"
    )
    here = environment.detect()
    kind = "kernel" if here.kernel else "no kernel"
    names = sorted(name for name in os.environ if name.startswith("LLAMATELEMETRY_"))
    yield Check(
        "environment",
        "ok",
        f"{here.host}, {kind}{', batch run' if here.batch else ''}{'; set: ' if names else ''}{', '.join(names)}",
    )
    if scrubbed := sorted(name for name in os.environ if name.startswith("LLAMA_ARG_")):
        yield Check("environment", "ok", f"{', '.join(scrubbed)}: kept from the engine, whose settings are ours")


def _packages() -> Iterator[Check]:
    """Versions of what the distribution's own metadata asks for, and of what its extras would bring."""
    own = _version(_DISTRIBUTION)
    if own is None:
        yield Check(
            "packages", "ok", f"{_DISTRIBUTION} is imported from a folder, not installed: its needs are unknown"
        )
        return
    wanted = {"ipykernel": False, _DISTRIBUTION: True}
    for line in importlib.metadata.requires(_DISTRIBUTION) or []:
        if found := re.match(r"[\w.-]+", line):
            wanted[found[0]] = wanted.get(found[0], False) or "extra ==" not in line
    versions = {name: _version(name) for name in wanted}
    there = [f"{name} {version}" for name, version in versions.items() if version]
    for start in range(0, len(there), _PER_ROW):
        yield Check("packages", "ok", ", ".join(there[start : start + _PER_ROW]))
    for name, needed in wanted.items():
        if needed and versions[name] is None:
            yield Check("packages", "missing", name, f"%pip install {name}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _server_extension() -> Iterator[Check]:
    """Whether a Jupyter server of this environment would load the extension, by what its own files say."""
    try:
        from jupyter_core.paths import jupyter_config_path
        from jupyter_server.extension.config import ExtensionConfigManager
    except ImportError:
        yield Check("server extension", "ok", "no jupyter_server in this environment: it serves none of our samples")
        return
    found = ExtensionConfigManager(read_config_path=jupyter_config_path()).get_jpserver_extensions()
    if found.get(_EXTENSION):
        yield Check("server extension", "ok", "on, in Jupyter servers of this environment: /llamatelemetry/kernels")
    else:
        yield Check("server extension", "ok", f"off (on: jupyter server extension enable {_EXTENSION})")


def _loopback() -> Iterator[Check]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(2.0)
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2.0) as client, listener.accept()[0] as server:
                server.sendall(b"x")
                arrived = client.recv(1) == b"x"
    except OSError as error:
        yield Check("ports", "warn", f"127.0.0.1 cannot be used: {error}", "!ip addr show lo")
        return
    if arrived:
        yield Check("ports", "ok", f"127.0.0.1 answers (tried port {port}); engines take a free one")
    else:
        yield Check("ports", "warn", "127.0.0.1 takes connections and loses what is sent", "!ip addr show lo")


def _folders() -> Iterator[Check]:
    try:
        folder = environment.runtime_dir()
    except OSError as error:
        yield Check("runtime folder", "warn", str(error), "%env LLAMATELEMETRY_RUNTIME_DIR=/tmp/mine")
    else:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o077:
            yield Check("runtime folder", "warn", f"{folder} is open to others ({mode:04o})", f"!chmod 700 {folder}")
        else:
            yield _folder("runtime folder", folder, "LLAMATELEMETRY_RUNTIME_DIR", 64 << 20)
    yield _folder("cache", environment.cache_dir(), "LLAMATELEMETRY_CACHE", _LITTLE_BYTES)
    yield _folder("data", environment.data_dir(), "LLAMATELEMETRY_DATA", 256 << 20)


def _folder(topic: str, path: Path, variable: str, wanted_bytes: int) -> Check:
    """Whether a folder, or the place where it would be made, can be written and has room."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".llamatelemetry-doctor-"):
            said = f"{path}, {size(free)} free"
    except OSError as error:
        return Check(
            topic, "warn", f"{path} cannot be written: {error.strerror}", f"%env {variable}=/a/folder/of/yours"
        )
    if free < wanted_bytes:
        return Check(topic, "warn", f"{said}: that is little", f"%env {variable}=/a/larger/disk")
    return Check(topic, "ok", said)


def _left_servers() -> Iterator[Check]:
    """Servers of kernels that are gone, by the state files that those left."""
    left = []
    for path in environment.runtime_dir().iterdir():
        if (found := _STATE_FILE.fullmatch(path.name)) is None:
            continue
        start = environment.process_start(int(found[1]))
        if start is not None and f"{start:.0f}" == found[2]:
            continue  # its kernel lives
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["pid"] and environment.process_start(state["pid"]) == state["pid_start"]:
                left.append(str(state["pid"]))
    if left:
        yield Check("servers", "warn", f"left by kernels that are gone: pid {', '.join(left)}", "%llama stop --orphans")


def _session(session: Session | None) -> Iterator[Check]:
    if session is None or "sampler" not in session.__dict__:
        yield Check("sampler", "ok", "not started: it starts with the first server")
        return
    if session.sampler.alive:
        yield Check("sampler", "ok", f"runs (pid {session.sampler.pid})")
    elif session.handle is not None:
        yield Check("sampler", "warn", f"it has ended (log: {session.sampler.log_path})", "%llama start")
    else:
        yield Check("sampler", "ok", "not running: no server runs either")
    if (handle := session.handle) is not None:
        yield Check(
            "servers", "ok", f"{handle.name} at {handle.url} (pid {handle.pid or 'n/a'}), {session.manager.state()}"
        )
    elif crash := session.manager.last_crash:
        yield Check("servers", "warn", f"the last one has crashed: {crash}", "%llama logs -n 60")


def _spans(session: Session | None) -> Iterator[Check]:
    if session is None or "spans" not in session.__dict__:
        return
    if said := session.spans.trouble():
        yield Check("spans", "warn", said, "%env LLAMATELEMETRY_DATA=/a/folder/of/yours")
    else:
        yield Check("spans", "ok", f"{session.spans.totals()['spans']:,} in {session.spans.path}")


def _index(by: str) -> Check:
    """Whether the package index that pip is set up with answers: its smallest file that we need is fetched."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--no-deps", "--no-cache-dir", "--retries", "0", "--timeout", f"{_ONLINE_S:.0f}"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "-d", folder, "comm"],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder, check=False,
        )  # fmt: skip
    if done.returncode == 0:
        return Check("internet", "ok", f"pip's package index answers{by}")
    last = (done.stderr.strip().splitlines() or ["no output"])[-1].removeprefix("ERROR: ")
    return Check("internet", "missing", f"pip's package index does not answer: {last[:120]}{by}", "!pip config list")


def _network(online: bool) -> Iterator[Check]:
    proxies = sorted(name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
    by = f"; proxies set: {', '.join(proxies)}" if proxies else ""
    if not online:
        yield Check("internet", "ok", f"not asked (%llama doctor --online){by}")
        return
    import requests

    yield _index(by)
    for host in _HOSTS:
        try:
            status = requests.head(f"https://{host}/", timeout=_ONLINE_S, allow_redirects=False).status_code
            yield Check("internet", "ok", f"{host} answers (HTTP {status}){by}")
        except requests.RequestException as error:
            fix = "Settings → Internet → on" if environment.detect().host == "kaggle" else f"!curl -sI https://{host}"
            yield Check("internet", "missing", f"{host} does not answer ({type(error).__name__}){by}", fix)
