"""How far long work is: the arithmetic, and the one line in a kernel, a terminal, a log and a batch run."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from downloadhost import File, Host, download_host
from jupyter_client.manager import start_new_kernel

from llamatelemetry_jupyter import progressline
from llamatelemetry_jupyter.progress import Pace, Step, counted
from llamatelemetry_jupyter.progressline import Line, shown
from llamatelemetry_jupyter.progresswords import cells_of, picture_of

pytestmark = pytest.mark.floor

MIB = 2**20
HOSTILE = "\x1b[31m<img src=x onerror=alert(1)>\r\n\u202egnp" + "$x$" * 40 + "-00001-of-00002.gguf"


# --------------------------------------------------------------------------------------------------------- arithmetic


def paced(states: list[tuple[float, float | None]], total: float | None = 100 * MIB, unit: str = "B") -> Pace:
    """A step that was told of at these times."""
    (first_s, first), *rest = states
    pace = Pace(Step("downloading", first, total, unit), first_s)
    for now_s, done in rest:
        pace.saw(Step("downloading", done, total, unit), now_s)
    return pace


def words(pace: Pace, now_s: float) -> str:
    return picture_of(pace, now_s, now_s).words()


def test_nothing_is_said_of_rate_and_time_before_they_are_known():
    assert words(paced([(0, 0)]), 0.5) == "downloading: 0 of 100 MiB, rate n/a, time left n/a, 0 s so far"
    assert paced([(0, 0), (0.4, 9 * MIB)]).rate(0.9) is None, "less than a second of it"
    assert paced([(0, 0), (0.4, 9 * MIB)]).rate(1.0) == 9 * MIB


def test_the_rate_is_that_of_the_last_ten_seconds():
    steady = paced([(n, n * MIB) for n in range(21)])
    assert steady.rate(20) == pytest.approx(MIB)
    assert steady.left_s(20) == pytest.approx(80)
    faster = paced([*((n, n * MIB) for n in range(21)), *((20 + n, (20 + 3 * n) * MIB) for n in range(1, 16))])
    assert faster.rate(35) == pytest.approx(3 * MIB)
    assert faster.left_s(35) == pytest.approx(35 / 3)
    assert words(faster, 35) == "downloading: 65.0 of 100 MiB, 3.0 MiB/s, 12 s left, 35 s so far"
    assert faster.mean_rate() == pytest.approx(65 * MIB / 35)


def test_what_comes_seldom_has_a_rate_over_several_advances():
    pace = paced([(30 * n, n) for n in range(9)], total=20, unit="prompts")
    assert pace.rate(240) == pytest.approx(1 / 30)
    assert words(pace, 240) == "downloading: 8 of 20 prompts, 2.0/min, 6 min 00 s left, 4 min 00 s so far"


def test_thousands_of_states_a_second_are_kept_as_few():
    pace = paced([(n / 5000, n) for n in range(50_000)], total=100_000, unit="spans")
    assert pace.rate(10) == pytest.approx(5000, rel=0.01)
    assert len(pace._seen) < 60


def test_a_download_that_goes_on_counts_from_where_it_began():
    pace = paced([(0, 60 * MIB), (2, 64 * MIB)])
    assert pace.rate(2) == pytest.approx(2 * MIB)
    assert pace.left_s(2) == pytest.approx(18)
    assert pace.step.fraction == 0.64


def test_one_that_begins_again_forgets_what_was():
    pace = paced([(0, 60 * MIB), (2, 64 * MIB), (3, 0), (5, 2 * MIB)])
    assert pace.rate(5) == pytest.approx(MIB)
    assert pace.left_s(5) == pytest.approx(98)


def test_it_counts_from_the_first_that_is_measured():
    pace = paced([(0, None), (9, None), (10, MIB), (12, 5 * MIB)])
    assert pace.rate(12) == pytest.approx(2 * MIB)


def test_one_that_stands_still_says_so_and_no_longer_promises_a_time():
    pace = paced([(n, n * MIB) for n in range(6)])
    assert pace.stalled_s(9.9) is None
    assert words(pace, 12) == "downloading: 5.0 of 100 MiB, nothing new for 7 s, 12 s so far"
    pace.saw(Step("downloading", 6 * MIB, 100 * MIB, "B"), 13)
    assert pace.stalled_s(14) is None
    assert words(pace, 14).endswith("left, 14 s so far")


def test_what_has_always_taken_its_time_does_not_stand_still():
    pace = paced([(0, 0)], total=10, unit="prompts")
    assert pace.stalled_s(60) is None, "nobody knows yet how long one takes"
    pace = paced([(0, 0), (20, 1), (41, 2)], total=10, unit="prompts")
    assert pace.stalled_s(100) is None
    assert pace.stalled_s(105) == pytest.approx(64)


def test_without_a_total_there_is_neither_bar_nor_time_left():
    pace = paced([(0, 0), (2, 8 * MIB)], total=None)
    assert picture_of(pace, 2, 2).text() == "downloading  8.0 MiB · 4.0 MiB/s · 2 s so far"
    assert "<progress" not in picture_of(pace, 2, 2).html()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("asking what hf:a/b offers"), "asking what hf:a/b offers: 3 s so far"),
        (Step("loading weights", 0.45, 1.0), "loading weights: 45 %, 3 s so far"),
        (Step("recording", 20, 60, "s"), "recording: 20 s of 1 min 00 s, 40 s left, 3 s so far"),
        (Step("answering", 3, 9, "prompts", 1), "answering: 3 of 9 prompts, 1 failed, rate n/a, time left n/a, 3 s so far"),
        (Step("x", 0.9 * MIB, 98 * MIB, "B"), "x: 922 KiB of 98.0 MiB, rate n/a, time left n/a, 3 s so far"),
        (Step("x", 0, 0, "texts"), "x: 0 texts, 3 s so far"),
    ],
)  # fmt: skip
def test_each_is_told_in_its_unit(step, said):
    assert words(Pace(step, 0), 3) == said


def test_the_bar_is_full_when_all_is_done_and_never_before():
    bars = {
        done: picture_of(Pace(Step("x", done, 1000, "B"), 0), 1, 1).text().split("  ")[0] for done in (0, 999, 1000)
    }
    assert bars == {0: f"x {'·' * 20}", 999: f"x {'█' * 19}·", 1000: f"x {'█' * 20}"}


@pytest.mark.parametrize("width", [200, 79, 59, 40, 20, 8])
@pytest.mark.parametrize("name", ["a.gguf", HOSTILE, "模型" * 40, "e\u0301" * 90])
def test_a_line_is_never_wider_than_the_terminal(name, width):
    pace = Pace(Step(f"downloading {name}", 5 * MIB, 98 * MIB, "B"), 0)
    text = picture_of(pace, 21, 21).text(width)
    assert cells_of(text) <= width
    assert not re.search(r"[\x00-\x1f\x7f\u202e]", text)
    if width >= 79:
        assert "5.0 of 98.0 MiB" in text
        assert re.search("[█·]{8,20}  ", text)


def test_a_name_is_text_in_the_notebook_and_its_end_is_seen():
    html = picture_of(Pace(Step(f"downloading {HOSTILE}", 1, 2, "B"), 0), 1, 1).html()
    assert "<img" not in html
    assert html.startswith("<pre "), "no front end looks for mathematics there"
    assert "of-00002.gguf" in html
    assert re.search(r'<progress max="100" value="50" aria-label="downloading [^"<>]*"', html)


def test_items_are_counted_while_they_are_taken():
    told = []
    assert list(counted("abc", "writing", 3, "spans", told.append)) == ["a", "b", "c"]
    assert told == [Step("writing", 0, 3, "spans"), Step("writing", 3, 3, "spans")]


def test_a_caller_may_have_it_told_to_a_function_or_to_nobody():
    told = []
    with shown(told.append) as say:
        say(Step("x"))
    assert told == [Step("x")]
    with shown(progress=False) as say:
        say(Step("x"))


# -------------------------------------------------------------------------------------------------------------- a log


def work(*, lasting_s: float, steps: int = 20, ends: str = "") -> str:
    """A program whose line tells of ``steps`` in so many seconds, and then does what ``ends`` says."""
    return textwrap.dedent(f"""
        import sys, time
        from llamatelemetry_jupyter import progressline
        from llamatelemetry_jupyter.progress import Step
        progressline._PLAIN_S = 1.0
        with progressline.Line() as line:
            for done in range({steps} + 1):
                line(Step({"downloading " + HOSTILE!r}, done * 2**20, {steps} * 2**20, "B"))
                time.sleep({lasting_s} / {steps})
            {ends}
        """)


def test_where_nobody_watches_there_are_few_plain_lines():
    done = subprocess.run([sys.executable, "-c", work(lasting_s=3.4)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    *during, last = done.stderr.splitlines()
    assert 1 <= len(during) <= 4
    assert all(re.fullmatch(r"downloading .*: [\d.]+ of 20.0 MiB, .* so far", one) for one in during)
    assert re.fullmatch(r"done in 3\.\d+ s: downloading .*, 20\.0 MiB, \d\.\d MiB/s", last)
    assert not re.search(r"[\x00-\x09\x0b-\x1f█]", done.stderr)


def test_what_takes_no_half_second_shows_nothing_but_its_result():
    quick = [sys.executable, "-c", work(lasting_s=0.05)]
    assert subprocess.run(quick, capture_output=True, text=True, check=True).stderr == ""
    told = [sys.executable, "-c", work(lasting_s=0.05, ends="line.end('here it is')")]
    done = subprocess.run(told, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("here it is\n", "")


@pytest.mark.parametrize(("raised", "how"), [("KeyboardInterrupt", "stopped"), ("OSError('no')", "failed")])
def test_the_last_line_says_what_ended_it(raised, how, capsys, monkeypatch):
    monkeypatch.setattr(progressline, "_PLAIN_S", 0.1)
    with pytest.raises((KeyboardInterrupt, OSError)), Line() as line:
        line(Step("answering", 3, 9, "prompts"))
        time.sleep(1.2)
        raise eval(raised)
    *_, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{how} after [\d.]+ s: answering, 3 of 9 prompts", last)


def test_an_error_that_comes_before_anybody_saw_the_line_stands_alone(capsys):
    with pytest.raises(OSError, match="no"), Line() as line:
        line(Step("answering", 3, 9, "prompts"))
        raise OSError("no")
    assert capsys.readouterr() == ("", "")


def test_its_thread_ends_with_it():
    import threading

    with Line() as line:
        line(Step("x"))
    assert "llamatelemetry-progress" not in [thread.name for thread in threading.enumerate()]


# --------------------------------------------------------------------------------------------------------- a terminal


def in_terminal(program: str, columns: int = 60, interrupt_after_s: float | None = None) -> str:
    """All that ``program`` writes to a terminal."""
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([sys.executable, "-c", program], stdin=its, stdout=its, stderr=its, env=env)
    os.close(its)
    written, begin = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if interrupt_after_s is not None and time.monotonic() - begin > interrupt_after_s and b"\r" in written:
            process.send_signal(signal.SIGINT)
            interrupt_after_s = None
        if ready:
            try:
                written += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    process.wait(30)
    return written.decode()


def seen(written: str) -> list[str]:
    """The lines that stay on the screen: what follows a carriage return is written over what was there."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown_now = ""
        for part in line.split("\r"):
            shown_now = part + shown_now[len(part) :]
        lines.append(shown_now.rstrip())
    return lines


def test_a_terminal_has_one_line_that_is_written_over():
    written = in_terminal(work(lasting_s=2.0, ends="line.note('by the way'); time.sleep(.3); line.end('here it is')"))
    assert seen(written) == ["by the way", "here it is", ""]
    drawn = [part.rstrip() for part in re.split(r"[\r\n]", written) if "MiB" in part]
    assert 4 <= len(drawn) <= 10
    assert all(cells_of(one) < 60 for one in drawn)
    assert "\x1b" not in written


def test_stopped_in_a_terminal_it_says_how_far_it_was():
    written = in_terminal(work(lasting_s=30), columns=120, interrupt_after_s=2)
    first, *rest = seen(written)
    assert re.match(r"stopped after [\d.]+ s: downloading .*, [\d.]+ of 20.0 MiB", first)
    assert any("KeyboardInterrupt" in one for one in rest)


# ----------------------------------------------------------------------------------------------------------- a kernel


class Kernel:
    """A kernel, and every message that its cells send."""

    def __init__(self, cwd: Path) -> None:
        self.manager, self.client = start_new_kernel(cwd=str(cwd))

    def run(self, code: str, interrupt_at: str | None = None) -> list[tuple[str, Any]]:
        request = self.client.execute(code, stop_on_error=False)
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=90)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                self.client.get_shell_msg(timeout=30)
                return messages
            if kind not in ("status", "execute_input"):
                messages.append((kind, content))
            if interrupt_at and interrupt_at in str(content.get("data", "")):
                self.manager.interrupt_kernel()
                interrupt_at = None


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))
    made = Kernel(tmp_path)
    made.run("%load_ext llamatelemetry")
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)


@pytest.fixture
def host() -> Iterator[Host]:
    with download_host() as running:
        yield running


@pytest.fixture
def address(host: Host, model_path: Path) -> str:
    """The demo model on a host that takes three seconds to send it."""
    content = model_path.read_bytes()
    host.files["/demo <b>.gguf"] = host.files["/demo%20%3Cb%3E.gguf"] = File(content, pauses=[0.25] * 12)
    return f"{host.url}/demo%20%3Cb%3E.gguf#sha256={hashlib.sha256(content).hexdigest()}"


def plain(messages: list[tuple[str, Any]], kind: str) -> list[str]:
    return [content["data"]["text/plain"] for found, content in messages if found == kind]


@pytest.mark.engine
def test_a_notebook_has_one_output_in_whose_place_the_result_comes(kernel, address):
    begin = time.monotonic()
    messages = kernel.run(f"%llama start {address} --ctx 512")
    passed_s = time.monotonic() - begin
    shown_first = [content for kind, content in messages if kind == "display_data"]
    updates = [content for kind, content in messages if kind == "update_display_data"]
    assert len(shown_first) == 1
    assert {one["transient"]["display_id"] for one in updates} == {shown_first[0]["transient"]["display_id"]}
    assert 4 <= len(updates) <= 4 * passed_s + 2
    during = [one["data"] for one in (*shown_first, *updates[:-1])]
    assert all({"text/html", "text/plain"} == set(one) for one in during)
    downloading = [one["text/plain"] for one in during if one["text/plain"].startswith("downloading demo_b_.gguf ")]
    assert re.search(r"█·* +[\d.]+ of 93\.8 MiB · [\d.]+ MiB/s · \d+ s left · \d s so far$", downloading[-1])
    assert list(updates[-1]["data"]) == ["text/plain"], "what is saved is the result alone"
    assert re.match(r"demo_b_ · .* · http://127", updates[-1]["data"]["text/plain"])


@pytest.mark.engine
def test_stopped_in_a_notebook_it_says_so_and_goes_on_from_there(kernel, address, host):
    messages = kernel.run(f"%llama models pull {address}", interrupt_at="MiB/s")
    assert re.match(
        r"stopped after .* s: downloading demo_b_\.gguf, [\d.]+ of 93\.8 MiB",
        plain(messages, "update_display_data")[-1],
    )
    messages = kernel.run(f"%llama models pull {address}")
    first = plain(messages, "display_data")[0]
    assert not re.search(r" [0-9]\.\d of 93\.8 MiB", first), "it counts what was there"
    assert host.hits[-1][2], "a range was asked for"
    assert plain(messages, "update_display_data")[-1].startswith("demo_b_ · Q4_1 · 93.8 MiB")


@pytest.mark.engine
def test_an_error_in_a_notebook_leaves_how_far_it_was(kernel, address, host):
    host.files["/demo%20%3Cb%3E.gguf"].cuts = [40 * MIB]
    host.files["/demo%20%3Cb%3E.gguf"].statuses = [200, 404]
    messages = kernel.run(f"%llama models pull {address}")
    assert messages[-1][0] == "error"
    assert "it is not there (HTTP 404)" in messages[-1][1]["traceback"][0]
    assert re.match(r"failed after .* s: ", plain(messages, "update_display_data")[-1])


@pytest.mark.engine
def test_a_host_that_sends_nothing_more_is_told_of(kernel, address, host):
    host.files["/demo%20%3Cb%3E.gguf"].pauses = [0.1, 0.1, 3.0]
    kernel.run("from llamatelemetry_jupyter import progress; progress._STALLED_S = 1.0")
    messages = kernel.run(f"%llama models pull {address}")
    assert any(
        re.search(r"[\d.]+ of 93\.8 MiB · nothing new for [12] s · ", one)
        for one in plain(messages, "update_display_data")
    )


# -------------------------------------------------------------------------------------------------------- a batch run


@pytest.mark.engine
def test_a_batch_run_has_a_few_plain_lines_and_the_result(address, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("LLAMATELEMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMATELEMETRY_BATCH", "1")
    cells = (
        "%load_ext llamatelemetry\nfrom llamatelemetry_jupyter import progressline; progressline._PLAIN_S = 1.0",
        f"%llama models pull {address}",
    )
    ran = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    nbclient.NotebookClient(ran, timeout=120, kernel_name="python3").execute()
    outputs = ran.cells[1].outputs
    lines = "".join(one.text for one in outputs if one.output_type == "stream").splitlines()
    assert 1 <= len(lines) <= 4
    assert all(re.match(r"(downloading|checking) demo_b_\.gguf: [\d.]+ of 93\.8 MiB", one) for one in lines)
    assert [
        one.data["text/plain"].startswith("demo_b_ · Q4_1") for one in outputs if one.output_type == "display_data"
    ] == [True]
    assert "widgets" not in ran.metadata
