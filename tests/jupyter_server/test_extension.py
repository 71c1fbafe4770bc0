"""The extension in a real Jupyter server, with real kernels and samplers: of those that live, are busy, or are dead."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterserver import REPO, JupyterServer, until

from llamatelemetry_jupyter.environment import process_start
from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.sampling.ring import RingWriter
from llamatelemetry_jupyter.sampling.rings import leave_note, readable
from llamatelemetry_jupyter.sampling.sampler import remove_stale
from llamatelemetry_jupyter.values import DeviceInfo, DeviceSample, OwnerBytes, ServerSample

pytestmark = pytest.mark.floor

SAMPLE = "from llamatelemetry_jupyter.session import current_session; current_session().sampler.start()"
BOTH = ["llamatelemetry/kernels", "llamatelemetry/samples?kernel=any"]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    made = JupyterServer(tmp_path_factory.mktemp("jupyter"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def kernel(jupyter: JupyterServer) -> str:
    """The id of a kernel that is sampled."""
    kernel_id = jupyter.notebook("sampled.ipynb")
    jupyter.run(kernel_id, SAMPLE)
    until(lambda: (ring := jupyter.entry(kernel_id)) and ring.get("memory") and ring["ring"])
    return kernel_id


@pytest.fixture
def plain(jupyter: JupyterServer) -> str:
    """The id of a kernel that never loaded this package."""
    return jupyter.notebook("plain.ipynb")


def samples(jupyter: JupyterServer, kernel: str, rest: str = "") -> dict:
    status, told = jupyter.get(f"llamatelemetry/samples?kernel={kernel}{rest}")
    assert status == 200, told
    return told


# ------------------------------------------------------------------------------------------------------- what it tells


def test_a_kernel_is_listed_with_its_notebook_its_process_and_its_memory(jupyter, kernel):
    entry = jupyter.entry(kernel)
    assert (entry["name"], entry["path"], entry["alive"]) == ("sampled.ipynb", "sampled.ipynb", True)
    assert entry["ring"] == f"{entry['pid']}-{process_start(entry['pid']):.0f}"
    assert entry["writer"]["alive"] is True
    assert entry["writer"]["gone_since_ns"] is None
    assert entry["error"] is None
    (host,) = [one for one in entry["memory"] if one["device"] == "host"]
    assert sum(host["owners"].values()) == host["total_bytes"]
    assert 10 << 20 < host["owners"]["kernel"] < 10 << 30


def test_samples_come_in_columns_with_null_for_what_is_not_available(jupyter, kernel):
    told = until(lambda: (s := samples(jupyter, kernel)) and len(s["devices"][0]["t_ns"]) > 2 and s)
    (host,) = [one for one in told["devices"] if one["device"] == "host"]
    assert host["name"]
    count = len(host["t_ns"])
    assert host["t_ns"] == sorted(host["t_ns"])
    assert all(len(host[name]) == count for name in ("used_bytes", "total_bytes", "util", "power_w"))
    assert host["power_w"] == [None] * count
    sums = [sum(filter(None, parts)) for parts in zip(*(one["bytes"] for one in host["owners"]), strict=True)]
    assert sums == host["total_bytes"]
    assert {"kernel", "free"} <= {one["owner"] for one in host["owners"]}
    assert 0 <= told["now_ns"] - host["t_ns"][-1] < 60e9


def test_the_window_ends_at_the_newest_sample_and_keeps_to_the_points(jupyter, kernel):
    until(lambda: len(samples(jupyter, kernel)["devices"][0]["t_ns"]) > 6)
    assert len(samples(jupyter, kernel, "&window_s=0")["devices"][0]["t_ns"]) == 1
    assert len(samples(jupyter, kernel, "&points=2")["devices"][0]["t_ns"]) <= 4


def test_a_kernel_without_a_sampler_is_listed_and_has_no_samples(jupyter, plain):
    entry = jupyter.entry(plain)
    assert entry["alive"] is True
    assert process_start(entry["pid"]) is not None
    assert (entry["ring"], entry["writer"], entry["memory"]) == (None, None, [])
    status, told = jupyter.get(f"llamatelemetry/samples?kernel={plain}")
    assert status == 404
    assert told == {"message": f"kernel {plain} has no samples", "hint": "%llama start"}


def test_another_kernels_sampler_tells_what_an_unsampled_one_holds_on_a_gpu(jupyter, plain):
    """Its process is among those that the driver names; the ring is one that a sampler of a machine with a GPU would write."""
    pid = jupyter.entry(plain)["pid"]
    gib = 1 << 30
    parts = (
        OwnerBytes("GPU-1", "other", gib, pid=pid),
        OwnerBytes("GPU-1", "weights", gib),
        OwnerBytes("GPU-1", "free", gib),
    )
    me = f"{os.getpid()}-{process_start(os.getpid()):.0f}"
    writer = RingWriter(jupyter.runtime / f"{me}.ring", start=process_start(os.getpid()))
    try:
        writer.describe([DeviceInfo("GPU-1", "Tesla T4", 3 * gib, None)])
        now = time.time_ns() + 10**9  # newer than what the real sampler has written
        writer.write(DeviceSample(now, "GPU-1", 2 * gib, 3 * gib, owners=parts))
        writer.write(ServerSample(now, "default", "generating"))
        expected = {"device": "GPU-1", "name": "Tesla T4", "used_bytes": 2 * gib, "total_bytes": 3 * gib}
        assert jupyter.entry(plain)["memory"] == [expected | {"owners": {"kernel": gib}}]
        _, told = jupyter.get("llamatelemetry/kernels")
        (mine,) = [one for one in told["kernels"] if one["ring"] == me]
        assert mine["memory"] == [expected | {"owners": {"other": gib, "weights": gib, "free": gib}}]
        assert mine["servers"] == [{"server": "default", "state": "generating"}]
        assert (mine["id"], mine["name"], mine["alive"]) == (None, None, True)
    finally:
        writer.close()
        writer.path.unlink()


# --------------------------------------------------------------------------------------------------- busy, dead, foreign


def test_a_kernel_that_holds_the_gil_and_then_is_killed_stays_readable(jupyter):
    kernel = jupyter.notebook("dies.ipynb")
    jupyter.run(kernel, SAMPLE)
    first = until(lambda: (one := jupyter.entry(kernel)) and one.get("memory") and one)
    jupyter.run(kernel, "import ctypes; ctypes.PyDLL(None).sleep(600)", wait=False)
    busy = samples(jupyter, kernel)["devices"][0]["t_ns"][-1]
    until(lambda: samples(jupyter, kernel)["devices"][0]["t_ns"][-1] > busy + 1e9)
    os.kill(first["pid"], signal.SIGKILL)
    # Jupyter starts another process under the same id, and nobody samples that one.
    again = until(lambda: (one := jupyter.entry(kernel)) and one["pid"] != first["pid"] and one)
    assert (again["alive"], again["ring"]) == (True, None)
    told = until(lambda: (s := samples(jupyter, kernel)) and not s["writer"]["alive"] and s)
    assert (told["pid"], told["alive"], told["ring"]) == (first["pid"], False, first["ring"])
    assert told["devices"][0]["t_ns"][-1] > busy
    assert told["writer"]["gone_since_ns"] == told["devices"][0]["t_ns"][-1]
    assert samples(jupyter, first["ring"])["devices"] == told["devices"]
    _, listed = jupyter.get("llamatelemetry/kernels")
    (gone,) = [one for one in listed["kernels"] if one["pid"] == first["pid"]]
    assert (gone["id"], gone["alive"], Path(gone["path"]).name) == (kernel, False, "dies.ipynb")
    assert gone["memory"][0]["owners"]["kernel"] > 0


def test_a_ring_is_its_kernels_by_the_note_where_the_launchers_pid_is_another(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path))
    pid, start = os.getpid(), process_start(os.getpid())
    writer = RingWriter(tmp_path / f"{pid}-{start:.0f}.ring")
    (unnoted,) = readable()
    assert unnoted.is_of("a", pid)
    assert not unnoted.is_of("a", 1)
    leave_note(writer.path, "a")
    (noted,) = readable()
    assert noted.is_of("a", 1)
    assert not noted.is_of("b", pid)
    for text in ("", "[1]", '{"id": 7', "\xff"):
        writer.path.with_suffix(".notebook.json").write_text(text, encoding="latin-1")
        assert readable()[0].kernel_id is None, text
    writer.close()


def test_a_note_is_kept_as_long_as_its_ring(tmp_path):
    ring, note = tmp_path / "99999999-1.ring", tmp_path / "99999999-1.notebook.json"
    old = time.time() - 100_000
    for path in (ring, tmp_path / "99999999-1.sampler.log", note):
        path.write_bytes(b"x")
        os.utime(path, (old, old))
    os.utime(ring)
    assert [path.name for path in remove_stale(tmp_path)] == ["99999999-1.sampler.log"]
    assert note.exists()
    os.utime(ring, (old, old))
    assert remove_stale(tmp_path) == [ring]
    assert list(tmp_path.iterdir()) == []


def test_damaged_rings_are_told_and_foreign_files_are_passed_over(jupyter, tmp_path):
    (jupyter.runtime / "99999999-1.ring").write_bytes(b"no ring" * 1000)
    (jupyter.runtime / "notes.ring").write_bytes(b"")
    (tmp_path / "else.ring").write_bytes(b"")
    (jupyter.runtime / "99999998-1.ring").symlink_to(tmp_path / "else.ring")
    status, told = jupyter.get("llamatelemetry/kernels")
    assert status == 200
    rings = {one["ring"]: one for one in told["kernels"]}
    assert "damaged" in rings["99999999-1"]["error"]
    assert (rings["99999999-1"]["alive"], rings["99999999-1"]["memory"]) == (False, [])
    assert not {"notes", "99999998-1"} & set(rings)
    status, told = jupyter.get("llamatelemetry/samples?kernel=99999999-1")
    assert status == 404
    assert "damaged" in told["message"]
    (jupyter.runtime / "99999999-1.ring").unlink()


def test_a_runtime_folder_of_somebody_else_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 424242)
    with pytest.raises(LlamaError, match="belongs to another user"):
        readable()


# ------------------------------------------------------------------------------------------------- who may ask, and what


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "token wrong"}])
def test_without_the_token_nothing_is_told(jupyter, path, headers):
    status, told = jupyter.ask("GET", path, headers=headers)
    assert status == 403
    assert set(told) <= {"message", "reason"}


@pytest.mark.parametrize("path", BOTH)
def test_who_may_not_read_kernels_may_not_read_what_they_hold(jupyter, path):
    headers = {"Authorization": f"token {jupyter.token}", "X-Refuse": "kernels"}
    assert jupyter.ask("GET", path, headers=headers)[0] == 403
    headers["X-Refuse"] = "contents"
    assert jupyter.ask("GET", path, headers=headers)[0] in (200, 404)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "the kernel is missing"),
        ("?kernel=", 400, "the kernel is missing"),
        ("?kernel=nobody", 404, "no kernel and no ring 'nobody'"),
        ("?kernel=../../etc/passwd", 404, "no kernel and no ring"),
        ("?kernel=" + "x" * 5000, 404, "no kernel and no ring"),
        ("?kernel=%FF", 400, "Invalid unicode"),
        ("?kernel=%3Cscript%3E", 404, "<script>"),
        ("?kernel=a&window_s=abc", 400, "window_s='abc' is no number from 0 to 86400"),
        ("?kernel=a&window_s=-1", 400, "window_s"),
        ("?kernel=a&window_s=nan", 400, "window_s"),
        ("?kernel=a&window_s=1e99", 400, "window_s"),
        ("?kernel=a&points=1", 400, "points='1' is no number from 2 to 5000"),
        ("?kernel=a&points=1000000", 400, "points"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(jupyter, query, status, words):
    got, told = jupyter.get(f"llamatelemetry/samples{query}")
    assert got == status
    assert words in told["message"]
    assert len(json.dumps(told)) < 400
    assert "Traceback" not in json.dumps(told)


def test_looking_is_no_activity(jupyter, kernel):
    before = jupyter.get("api/status")[1]["last_activity"]
    jupyter.get("llamatelemetry/kernels")
    samples(jupyter, kernel)
    assert jupyter.get("api/status")[1]["last_activity"] == before


def test_nothing_of_the_extension_failed_in_the_server(jupyter):
    log = jupyter.log.read_text()
    assert "llamatelemetry_jupyter.jupyter_server | extension was successfully loaded" in log
    assert "Uncaught exception" not in log


# --------------------------------------------------------------------------------------------------------- import, docs


def test_importing_it_loads_no_driver_and_nothing_heavy():
    code = """
import sys, jupyter_server.serverapp, jupyter_server.base.handlers
before = set(sys.modules)
import llamatelemetry_jupyter.jupyter_server.handlers
first = set(sys.modules) - before
import llamatelemetry_jupyter.jupyter_server.answers
print(sorted(first)); print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at_start, at_first_question = (set(json.loads(line.replace("'", '"'))) for line in done.stdout.splitlines()[-2:])
    room = "llamatelemetry_jupyter"
    own = ("errors", "escape", "jupyter_server", "jupyter_server.handlers")
    assert at_start == {room, *(f"{room}.{name}" for name in own)}
    ours = {name.split(".")[1] for name in at_first_question if name.startswith(f"{room}.")}
    assert ours == {"clock", "environment", "errors", "escape", "jupyter_server", "sampling", "values"}
    assert not {"pynvml", "numpy", "pandas", "requests", "opentelemetry.sdk"} & at_first_question


def test_what_the_page_shows_is_what_it_answers(jupyter, kernel):
    page = (REPO / "docs" / "jupyter-server.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    variables = {"TOKEN": jupyter.token, "SERVER": jupyter.url.rstrip("/"), "KERNEL": kernel}
    shown = []
    for block in blocks:
        done = subprocess.run(["bash", "-ec", block], env=os.environ | variables, capture_output=True, check=True)
        shown.append(json.loads(done.stdout))
    assert kernel in {one["id"] for one in shown[0]["kernels"]}
    assert shown[1]["id"] == kernel
    # Every name that the page explains is there.
    listed = next(one for one in shown[0]["kernels"] if one["id"] == kernel)
    explained = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert explained == set(listed) | set(shown[1])
