"""The operations behind the dashboard's graph: drawn from the store, sent only with a token that was given for it."""

from __future__ import annotations

import json
import sys
import threading
from types import SimpleNamespace

import pytest
from graphistryhub import hub
from viewworld import trace

from llamatelemetry_jupyter import graphs, operations
from llamatelemetry_jupyter.errors import CommandError, ExportError, LlamaError
from llamatelemetry_jupyter.graphs import Graphs
from llamatelemetry_jupyter.telemetry.store import SpanStore

__all__ = ["hub"]


@pytest.fixture
def session(tmp_path):
    """A session's spans in a real store: three traces."""
    store = SpanStore(tmp_path / "spans.sqlite")
    for n in range(1, 4):
        for row in sorted(trace(n, n * 5), key=lambda r: r.end_ns):
            store.append(row)
    yield SimpleNamespace(spans=store)
    store.close()


@pytest.fixture
def ask(session):
    """``ask(op, **args)``: the answer, JSON-safe as it is sent; ``ask.stages`` are those it told of."""
    known = operations.of(session)
    stages = []

    def asked(op, **args):
        made = known[op](progress=lambda step: stages.append(step.what), **args)
        return json.loads(json.dumps(made, allow_nan=False))

    asked.stages = stages
    return asked


def test_the_session_is_drawn_by_what_it_repeats(ask):
    made = ask("graph", kind="session")
    assert (made["kind"], made["spans"], made["left_out"]) == ("session", 15, [])
    chat = next(node for node in made["nodes"] if node["label"] == "chat smollm2-135m")
    assert (chat["kind"], chat["spans"], chat["tokens"], chat["errors"]) == ("chat", 3, 288, 0)
    assert chat["trace_id"] == f"{3:032x}"
    assert chat["span_id"] == f"{(3 << 20) + 1:016x}"
    assert chat["end_ms"] - chat["start_ms"] == pytest.approx(2150)


def test_one_trace_is_drawn_the_newest_without_a_name(ask):
    first, newest = ask("graph", kind="trace", trace_id=f"{1:032x}"), ask("graph", kind="trace")
    assert (first["trace_id"], newest["trace_id"]) == (f"{1:032x}", f"{3:032x}")
    assert [node["label"] for node in first["nodes"]] == [
        "notebook cell",
        "chat smollm2-135m",
        "queue",
        "prefill",
        "decode",
    ]
    assert {node["trace_id"] for node in first["nodes"]} == {f"{1:032x}"}


def test_what_there_is_not_is_told_with_what_to_type(ask, tmp_path):
    for args in ({"kind": "trace", "trace_id": "beef"}, {"kind": "everything"}):
        with pytest.raises(CommandError) as caught:
            ask("graph", **args)
        assert caught.value.hint
    empty = SimpleNamespace(spans=SpanStore(tmp_path / "empty.sqlite"))
    nothing = Graphs(empty)
    assert nothing.draw("session", progress=print)["nodes"] == []
    assert nothing.draw("trace", progress=print)["nodes"] == []
    with pytest.raises(CommandError, match="there is no trace yet"):
        nothing.prepare("session", progress=print)
    empty.spans.close()


def test_a_picture_is_of_the_newest_spans_and_says_how_many_are_left_out(ask, monkeypatch):
    monkeypatch.setattr(graphs, "MAX_SPANS", 5)
    assert ask("graph", kind="session")["left_out"] == ["10 earlier spans"]


def test_preparing_sends_nothing_and_tells_all_that_would_go(ask, hub):
    told = ask("graph.prepare", kind="session")
    assert hub.requests == []
    assert told["host"] == f"127.0.0.1:{hub.port}"
    assert told["rows"] == {"nodes": len(ask("graph", kind="session")["nodes"]), "edges": 13}
    assert told["columns"]["edges"] == ["source", "target", "kind", "count", "p50_s", "p95_s"]
    assert told["private"] is True
    assert "prompts and answers" in told["left_out"]
    assert ask("graph.prepare", kind="trace", trace_id=f"{1:032x}")["rows"] == {"nodes": 5, "edges": 4}
    assert "swordfish" not in json.dumps(told)


def test_a_token_sends_what_was_announced_once(ask, hub):
    token = ask("graph.prepare", kind="session")["token"]
    sent = ask("graph.upload", token=token)
    assert sent["url"].startswith(f"http://127.0.0.1:{hub.port}/graph/graph.html?dataset=d41d8")
    assert ask.stages[-2:] == ["sending the edges", "sending the nodes"]
    before = len(hub.requests)
    for bad in (token, "nobody's"):
        with pytest.raises(LlamaError, match="nothing was sent") as caught:
            ask("graph.upload", token=bad)
        assert caught.value.hint
    assert len(hub.requests) == before


def test_two_confirmations_at_once_send_one_graph(session, hub):
    both = Graphs(session)
    token = both.prepare("session", progress=lambda *_: None)["token"]
    outcomes = []

    def send():
        try:
            outcomes.append(both.upload(token, progress=lambda *_: None)["url"])
        except CommandError:
            outcomes.append("refused")

    threads = [threading.Thread(target=send) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(outcomes)[1] == "refused"
    assert len([p for p in hub.paths if p == "/api/v2/upload/datasets/"]) == 1


def test_a_token_is_good_for_some_minutes_and_a_few_are_kept(ask, hub, monkeypatch):
    tokens = [ask("graph.prepare", kind="session")["token"] for _ in range(5)]
    with pytest.raises(CommandError):
        ask("graph.upload", token=tokens[0])
    real = graphs.time.monotonic
    monkeypatch.setattr(graphs.time, "monotonic", lambda: real() + graphs.TOKEN_S + 1)
    with pytest.raises(CommandError, match="10 minutes"):
        ask("graph.upload", token=tokens[4])
    assert hub.requests == []


def test_no_account_no_network_no_package(ask, hub, monkeypatch):
    monkeypatch.setenv("GRAPHISTRY_HOSTNAME", "127.0.0.1:9")
    token = ask("graph.prepare", kind="session")["token"]
    with pytest.raises(ExportError, match="cannot be reached") as caught:
        ask("graph.upload", token=token)
    assert caught.value.hint
    token = ask("graph.prepare", kind="session")["token"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "graphistry", None)
        with pytest.raises(ExportError, match="pygraphistry cannot be loaded; nothing was sent") as caught:
            ask("graph.upload", token=token)
    assert caught.value.hint == "%pip install graphistry"
    monkeypatch.delenv("GRAPHISTRY_PASSWORD")
    with pytest.raises(ExportError, match="GRAPHISTRY_PASSWORD is missing"):
        ask("graph.prepare", kind="session")
