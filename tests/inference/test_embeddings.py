"""Vectors of texts against the real engine: batches, the cache, the search."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from realengine import Engine, running_engine
from recorder import Recorder

from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import CommandError, RequestError
from llamatelemetry_jupyter.inference._vectors import VectorCache
from llamatelemetry_jupyter.inference.embeddings import BATCH_TEXTS, Embeddings
from llamatelemetry_jupyter.inference.engine import InferenceEngine
from llamatelemetry_jupyter.progress import Step

pytestmark = [pytest.mark.floor, pytest.mark.engine]


@pytest.fixture
def vectors(vectors_llm: InferenceEngine) -> Embeddings:
    return Embeddings(vectors_llm)


def asked(recorder: Recorder) -> list[list[str]]:
    return [call.request["input"] for call in recorder.calls if call.operation == "embeddings"]


def test_one_row_of_length_one_per_text_in_order(vectors: Embeddings) -> None:
    made = vectors.embed(["a dog barks", "the sea", "a dog barks"])
    assert made.shape == (3, 576)
    assert made.dtype == np.float32
    assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
    assert (made[0] == made[2]).all()
    assert (vectors.embed("the sea")[0] == made[1]).all()
    assert vectors.embed([]).shape == (0, 0)


def test_equal_texts_are_asked_for_once_and_known_ones_not_at_all(vectors: Embeddings, recorder: Recorder) -> None:
    vectors.embed(["a", "b", "a"])
    vectors.embed(["b", "c"])
    assert asked(recorder) == [["a", "b"], ["c"]]


def test_requests_are_bounded(vectors: Embeddings, recorder: Recorder) -> None:
    told = []
    texts = [f"n {n}" for n in range(BATCH_TEXTS + 3)]
    vectors.embed(texts, progress=told.append)
    assert [len(part) for part in asked(recorder)] == [BATCH_TEXTS, 3]
    assert {(step.total, step.unit) for step in told} == {(BATCH_TEXTS + 3, "texts")}
    assert [step.done for step in told] == [0, BATCH_TEXTS, BATCH_TEXTS + 3]


TEXTS = ["a dog barks", "quantum chromodynamics is the theory of quarks and of the gluons between them", "x", "sea"]


def test_a_server_of_ours_pools_rightly_also_with_several_slots(model_path: Path) -> None:
    with InferenceEngine() as llm:
        llm.load_model(str(model_path), embeddings=True, slots=2, ctx=512)
        together = np.asarray(llm.client.embeddings(TEXTS), np.float32)
        alone = np.asarray([llm.client.embeddings(text)[0] for text in TEXTS], np.float32)
    assert (together * alone).sum(1) == pytest.approx(1, abs=1e-4)


def test_vectors_are_right_where_an_engine_of_others_pools_wrongly() -> None:
    with running_engine("embeddings-apart") as engine:
        llm = InferenceEngine(LlamaCppClient(engine.url, engine.key))
        together = np.asarray(llm.client.embeddings(TEXTS), np.float32)
        vectors = Embeddings(llm).embed(TEXTS)
        alone = np.asarray([llm.client.embeddings(text)[0] for text in TEXTS], np.float32)
    assert (vectors * alone).sum(1) == pytest.approx(1, abs=1e-4)
    assert (together * alone).sum(1).min() < 0.99, "the engine is right now: _together may go"


def test_an_interrupt_keeps_what_had_come(vectors: Embeddings, recorder: Recorder) -> None:
    texts = [f"n {n}" for n in range(BATCH_TEXTS + 3)]

    def interrupt(step: Step) -> None:
        if step.done:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        vectors.embed(texts, progress=interrupt)
    vectors.embed(texts)
    assert [len(part) for part in asked(recorder)] == [BATCH_TEXTS, 3]


@pytest.mark.parametrize("bad", [["a", ""], ["a", " \n"], ["a", None], ["a", 3]])
def test_what_is_no_text_is_named(vectors: Embeddings, recorder: Recorder, bad: list[object]) -> None:
    with pytest.raises(CommandError, match="text 1 is"):
        vectors.embed(bad)
    assert not recorder.calls


def test_the_text_that_is_too_long_is_named(vectors: Embeddings) -> None:
    with pytest.raises(RequestError, match=r"text 2: .*too large"):
        vectors.embed(["a", "b", "word " * 800, "c"])


def test_a_server_without_embeddings_says_how_to_get_one(llm: InferenceEngine) -> None:
    with pytest.raises(RequestError, match="makes no embeddings") as caught:
        Embeddings(llm).embed("a")
    assert caught.value.hint == "%llama embed starts one that does"


# ------------------------------------------------------------------------------------------------------------ search


FRAME = pd.DataFrame(
    {"text": ["the cat sleeps", None, "stock markets fell", "", "a kitten naps"], "n": range(5)},
    index=["a", "b", "c", "d", "d"],
)


def test_search_finds_rows_and_keeps_their_index(vectors: Embeddings) -> None:
    found = vectors.search(FRAME, "text", "the cat sleeps", k=2)
    assert list(found.columns) == ["text", "n", "similarity"]
    assert found.index[0] == "a"
    assert found["similarity"].iloc[0] == pytest.approx(1, abs=1e-4)
    assert found["similarity"].is_monotonic_decreasing
    assert "similarity" not in FRAME.columns
    rows = vectors.search(FRAME, "text", "cats", k=99)
    assert sorted(rows["n"]) == [0, 2, 4]


def test_an_index_is_made_once_and_asked_often(vectors: Embeddings, recorder: Recorder) -> None:
    index = vectors.index(FRAME, "text", progress=False)
    before = len(recorder.calls)
    for query in ("cats", "money", "cats"):
        index.search(query, 1)
    assert [call.request["input"] for call in recorder.calls[before:]] == [["cats"], ["money"]]
    assert (len(index), repr(index)) == (3, "EmbeddingIndex(3 rows × 576)")
    near = index.vectors @ vectors.embed("cats")[0]
    assert index.search("cats", 3)["similarity"].to_numpy() == pytest.approx(np.sort(near)[::-1])


def test_tables_that_cannot_be_searched(vectors: Embeddings, recorder: Recorder) -> None:
    for bad, says in (
        ((FRAME, "txt"), "no column 'txt'"),
        ((FRAME, "n"), "holds no text"),
        ((["a"], "text"), "a DataFrame is needed"),
    ):
        with pytest.raises(CommandError, match=says):
            vectors.search(*bad, "cats")
    with pytest.raises(CommandError, match="k must be"):
        vectors.search(FRAME, "text", "cats", k=0)
    twice = pd.concat([FRAME[["text"]], FRAME[["text"]]], axis=1)
    with pytest.raises(CommandError, match="names several columns"):
        vectors.search(twice, "text", "cats")
    assert vectors.search(FRAME[:0], "text", "cats").empty
    assert not asked(recorder)


# ------------------------------------------------------------------------------------------------------------- cache


def test_a_file_keeps_vectors_for_the_next_kernel(
    vectors_llm: InferenceEngine, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "vectors.sqlite"
    first = Embeddings(vectors_llm, cache=path)
    made = first.embed(["a", "b"])
    first.close()
    again = Embeddings(vectors_llm, cache=path).embed(["b", "a"])
    assert (again == made[::-1]).all()
    assert asked(recorder) == [["a", "b"]]
    assert b"a" not in {row[0] for row in sqlite3.connect(path).execute("SELECT key FROM vectors")}


def test_another_model_shares_nothing(
    vectors_llm: InferenceEngine, engine: Engine, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vectors.sqlite"
    Embeddings(vectors_llm, cache=path).embed("a")
    monkeypatch.setattr("llamatelemetry_jupyter.inference.embeddings._identity", lambda engine: b"another model")
    Embeddings(vectors_llm, cache=path).embed("a")
    assert asked(recorder) == [["a"], ["a"]]


def test_the_least_recently_used_go_first() -> None:
    def vector(value: int) -> np.ndarray:
        return np.full(100, value, np.float32)

    cache = VectorCache(None, max_bytes=5 * (400 + 96))
    for n in range(5):
        cache.put({b"%d" % n: vector(n)})
    cache.get([b"0"])
    cache.put({b"5": vector(5), b"6": vector(6)})
    kept = cache.get([b"%d" % n for n in range(7)])
    assert sorted(kept) == [b"0", b"3", b"4", b"5", b"6"]
    assert (kept[b"0"] == vector(0)).all()


def test_more_than_the_cache_holds_is_still_answered(vectors_llm: InferenceEngine) -> None:
    small = Embeddings(vectors_llm, cache_bytes=5000)
    assert small.embed([f"n {n}" for n in range(6)]).shape == (6, 576)


def test_a_file_that_is_no_cache_is_refused(vectors_llm: InferenceEngine, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("not a database, and long enough to be seen as none" * 30)
    for bad in (path, tmp_path, path / "y"):
        with pytest.raises(CommandError, match="cannot be used"):
            Embeddings(vectors_llm, cache=bad)
