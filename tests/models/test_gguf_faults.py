"""Damaged headers by the thousand: every one is read or refused, quickly, in little memory, and with one kind of error."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc

import pytest

pytest.importorskip("gguf")

from ggufs import Shape, write

from llamatelemetry_jupyter.errors import GGUFError, LlamaError
from llamatelemetry_jupyter.models import gguf
from llamatelemetry_jupyter.models.demand import Demand
from llamatelemetry_jupyter.models.plan import Device, largest_context, plan
from llamatelemetry_jupyter.models.shape import shape_of
from llamatelemetry_jupyter.views.models import model_view
from llamatelemetry_jupyter.views.plan import plan_view

pytestmark = pytest.mark.faults

DEMAND = Demand(4096, slots=2)
CARDS = (Device("T4", 14 << 30, "gpu"), Device("L4", 22 << 30, "gpu"))
HOST = Device("host", 16 << 30, "host")

_EXTREMES = [0, 1, 7, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A header with every kind of value, a vocabulary, arrays, and weights behind it."""
    shape = Shape(
        embd=64,
        ff=64,
        heads=2,
        kv_heads=1,
        head=32,
        vocab=1200,
        extra={"flags": [True, False], "sizes": [1, 2, 3], "names": ["é", "ß"], "scale": 0.5},
    )
    return write(tmp_path_factory.mktemp("base") / "base.gguf", shape).read_bytes()


def mutate(good: bytes, header: int, keys: int, chance: random.Random) -> bytes:
    """``good`` with one to four injuries up to ``header``, half of them before ``keys``, where the model's measures are."""
    raw = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(4, chance.choice([keys, header]))
        kind = chance.randrange(5)
        if kind == 0:
            raw[at] = chance.randrange(256)
        elif kind == 1:  # a length, count, dimension or offset at one of the ends of its range
            raw[at : at + 8] = struct.pack("<Q", chance.choice(_EXTREMES))
        elif kind == 2:
            raw[at : at + 4] = struct.pack("<I", chance.choice(_EXTREMES) & 0xFFFFFFFF)
        elif kind == 3:
            del raw[at : at + chance.randrange(1, 64)]
        else:
            other = chance.randrange(4, header)
            raw[at : at + 64] = raw[other : other + 64]
    return bytes(raw)


class Measured:
    """Reads files and keeps the worst of each: CPU seconds of this thread, peak of Python's memory."""

    def __init__(self, path):
        self.path = path
        self.worst_s = 0.0
        self.worst_bytes = 0
        self.said: set[str] = set()

    def read(self, raw: bytes) -> bool:
        """Whether the header was accepted; raises what is not GGUFError."""
        self.path.write_bytes(raw)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        begun = time.thread_time()
        try:
            header = gguf.read_header(self.path)
        except GGUFError as problem:
            self.said.add("\n".join(problem._render_traceback_()))
            return False
        finally:
            self.worst_s = max(self.worst_s, time.thread_time() - begun)
            self.worst_bytes = max(self.worst_bytes, tracemalloc.get_traced_memory()[1] - before)
        self.use(header)
        return True

    def use(self, header) -> None:
        """A header that was accepted may still say anything: it is planned with and shown, or refused."""
        try:
            shape = shape_of(header)
            view = model_view(header, shape, DEMAND)
            view._repr_html_()
            found = plan(shape, CARDS, HOST, DEMAND)
            plan_view("plan", found, [f"{largest_context(shape, CARDS, HOST, DEMAND)}"])._repr_html_()
        except LlamaError as problem:
            self.said.add("\n".join(problem._render_traceback_()))


@pytest.fixture
def measured(tmp_path):
    tracemalloc.start()
    yield Measured(tmp_path / "damaged.gguf")
    tracemalloc.stop()


def test_mutated_headers(base, measured, scale, fault_report):
    chance, tried, begun = random.Random(7), max(3, round(10_000 * scale)), time.monotonic()
    header = base.index(b"ffn_down.weight") + 100  # behind the last keys, within the tensors' list
    keys = base.index(b"tokenizer.ggml.tokens")
    accepted = sum(measured.read(mutate(base, header, keys, chance)) for _ in range(tried))
    assert accepted < tried  # else nothing was damaged
    assert {text.count("\n") for text in measured.said} == {1}  # what happened, what to type
    assert measured.worst_s < 0.05
    assert measured.worst_bytes < 64 << 20
    fault_report(
        id="gguf_mutated",
        what=f"GGUF headers with random bytes, extreme counts, cuts and swaps: GGUFError or read, planned and shown; worst {measured.worst_s * 1e3:.0f} ms, "
        f"{measured.worst_bytes / 2**20:.1f} MiB",
        tried=tried,
        survived=tried,
        lost=0,
        seconds=time.monotonic() - begun,
    )


def test_files_cut_anywhere(base, measured, scale, fault_report):
    chance, tried, begun = random.Random(7), max(3, round(1_000 * scale)), time.monotonic()
    assert not any(measured.read(base[: chance.randrange(len(base))]) for _ in range(tried))
    assert measured.worst_s < 0.05
    assert measured.worst_bytes < 64 << 20
    fault_report(
        id="gguf_truncated",
        what=f"GGUF files cut at a random byte: GGUFError; worst {measured.worst_s * 1e3:.0f} ms, {measured.worst_bytes / 2**20:.1f} MiB",
        tried=tried,
        survived=tried,
        lost=0,
        seconds=time.monotonic() - begun,
    )


def test_a_hole_as_large_as_a_model_is_not_walked_through(base, tmp_path):
    """A preallocated download: the beginning of the header is there, the rest of many gigabytes is zeros."""
    path = tmp_path / "hole.gguf"
    cut = base.index(b"tokenizer.ggml.tokens") + 21 + 4 + 4 + 8 + 500
    for claimed in (None, 1_500_000, 1 << 33):
        raw = bytearray(base[:cut])
        if claimed is not None:
            raw[cut - 508 : cut - 500] = struct.pack("<Q", claimed)
        path.write_bytes(raw)
        with path.open("r+b") as file:
            file.truncate(40 << 30)
        begun = time.thread_time()
        with pytest.raises(GGUFError):
            gguf.read_header(path)
        assert time.thread_time() - begun < 2
