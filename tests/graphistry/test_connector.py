"""An upload, with pygraphistry's real client against a server on loopback that records what arrives."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace

import pytest
from hostile import WORDS
from viewworld import trace

from llamatelemetry_jupyter.errors import ExportError
from llamatelemetry_jupyter.graphistry import connector
from llamatelemetry_jupyter.graphistry.builders import trace_tree
from llamatelemetry_jupyter.graphistry.connector import credentials, prepare, upload
from llamatelemetry_jupyter.values import GraphFrames
from llamatelemetry_jupyter.views import theme


def table(body: bytes):
    import pyarrow

    return pyarrow.ipc.open_file(io.BytesIO(body)).read_all()


def worker() -> threading.Thread | None:
    return next((t for t in threading.enumerate() if t.name == "llamatelemetry-graphistry"), None)


def test_nothing_is_sent_before_the_upload(hub):
    plan = prepare(trace_tree(trace(1, 0)))
    assert (plan.host, plan.node_rows, plan.edge_rows) == (f"127.0.0.1:{hub.port}", 5, 4)
    assert hub.requests == []
    assert "swordfish" not in repr(plan)
    upload(plan)
    assert hub.requests


def test_the_dataset_is_private_before_the_first_row_is_sent(hub):
    told = []
    sent = upload(prepare(trace_tree(trace(1, 0))), on_progress=told.append)
    assert [step.what for step in told][-3:] == ["making the dataset private", "sending the edges", "sending the nodes"]
    assert sent.dataset_id == "d41d8"
    assert sent.url.startswith(f"http://127.0.0.1:{hub.port}/graph/graph.html?dataset=d41d8&type=arrow&")
    order = [p for p in hub.paths if p.startswith(("/api/v2/upload", "/api/v2/share", "/api/v2/files"))]
    assert order == [
        "/api/v2/upload/datasets/",
        "/api/v2/share/link/",
        "/api/v2/upload/datasets/d41d8/edges/arrow",
        "/api/v2/upload/datasets/d41d8/nodes/arrow",
    ]
    share = next(r for r in hub.requests if r.path == "/api/v2/share/link/").json
    assert (share["obj_pk"], share["mode"], share["notify"], share["invited_users"]) == ("d41d8", "private", False, [])


def test_only_the_announced_columns_arrive(hub):
    frames = trace_tree(trace(1, 0))
    extra = GraphFrames(frames.nodes.assign(prompt="my secret", host="mine"), frames.edges.assign(path="/home/me"))
    plan = prepare(extra)
    upload(plan)
    edges, nodes = (table(r.body) for r in hub.requests if r.path.endswith("/arrow"))
    assert tuple(nodes.column_names) == plan.node_columns == connector.NODE_COLUMNS
    assert tuple(edges.column_names) == plan.edge_columns == connector.EDGE_COLUMNS
    assert nodes.num_rows == plan.node_rows
    everything = b"".join(r.body for r in hub.requests)
    assert b"my secret" not in everything
    assert b"/home/me" not in everything


def test_layout_and_colours_go_along_and_no_fingerprint_of_this_machine(hub):
    upload(prepare(trace_tree(trace(1, 0))))
    made = next(r for r in hub.requests if r.path == "/api/v2/upload/datasets/").json
    assert made["node_encodings"]["bindings"]["node_x"] == "x"
    assert made["edge_encodings"]["bindings"] == {"source": "source", "destination": "target"}
    assert "#00866a" in json.dumps(made["node_encodings"]["complex"])
    assert made["metadata"]["usertag"] == "llamatelemetry"


def test_a_trace_of_one_span_is_sent_too(hub):
    upload(prepare(trace_tree(trace(1, 0)[:1])))
    edges, nodes = (table(r.body) for r in hub.requests if r.path.endswith("/arrow"))
    assert (edges.num_rows, nodes.num_rows) == (0, 1)
    assert [str(t) for t in edges.schema.types] == ["string", "string", "string", "int64", "double", "double"]


@pytest.mark.parametrize("word", WORDS[:5])
def test_labels_are_harmless_on_the_servers_page(hub, word):
    rows = [replace(row, name=word) for row in trace(1, 0)]
    plan = prepare(trace_tree(rows))
    assert not plan.frames.nodes["label"].str.contains("[<>\x1b\u202e]").any()


def test_a_server_that_refuses_to_share_gets_no_row(hub):
    hub.refuse["/api/v2/share/link/"] = (403, '{"detail": "<b>no sharing</b>"}')
    with pytest.raises(ExportError, match=r"refused to make dataset d41d8 private, so no row went") as caught:
        upload(prepare(trace_tree(trace(1, 0))))
    assert caught.value.hint
    assert not [p for p in hub.paths if p.endswith("/arrow")]


def test_refused_credentials_name_what_to_check(hub):
    hub.refuse["/api-token-auth/"] = (400, '{"non_field_errors": ["Unable to log in"]}')
    with pytest.raises(ExportError, match="refused the credentials; nothing was sent") as caught:
        upload(prepare(trace_tree(trace(1, 0))))
    assert caught.value.hint == "check GRAPHISTRY_USERNAME and GRAPHISTRY_PASSWORD"
    assert "swordfish" not in str(caught.value)


def test_the_servers_words_are_capped_and_harmless(hub):
    hub.refuse["/api/v2/upload/datasets/d41d8/nodes"] = (500, "\x1b[31mCUDA error\n" + "x" * 100_000)
    with pytest.raises(ExportError, match="sending the nodes; private dataset d41d8 may be incomplete") as caught:
        upload(prepare(trace_tree(trace(1, 0))))
    assert "HTTP 500: " in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_no_network(monkeypatch, hub):
    monkeypatch.setenv("GRAPHISTRY_HOSTNAME", "127.0.0.1:9")
    with pytest.raises(ExportError, match=r"127\.0\.0\.1:9 cannot be reached"):
        upload(prepare(trace_tree(trace(1, 0))))
    monkeypatch.delenv("GRAPHISTRY_USERNAME")
    monkeypatch.setenv("GRAPHISTRY_TOKEN", "a.b.c")
    with pytest.raises(ExportError, match=r"127\.0\.0\.1:9 cannot be reached"):
        upload(prepare(trace_tree(trace(1, 0))))


def test_a_server_that_never_answers_is_given_up_and_gets_nothing_afterwards(hub):
    import graphistry  # noqa: F401 (so that the deadline is spent on the server)

    hub.silent = "/api-token-auth/"
    with pytest.raises(ExportError, match=r"did not answer within 0\.5 s while .*; nothing was sent"):
        upload(prepare(trace_tree(trace(1, 0))), deadline_s=0.5)
    assert hub.arrived.wait(10)
    left = worker()
    hub.release.set()
    assert left is not None
    left.join(10)
    assert not [p for p in hub.paths if "upload" in p]


@pytest.mark.parametrize(
    ("names", "endpoint"),
    [
        (("GRAPHISTRY_PERSONAL_KEY_ID", "GRAPHISTRY_PERSONAL_KEY_SECRET"), "/api/v2/auth/pkey/jwt/"),
        (("GRAPHISTRY_TOKEN",), "/api-token-verify/"),
    ],
)
def test_the_other_ways_to_log_in(hub, monkeypatch, names, endpoint):
    monkeypatch.delenv("GRAPHISTRY_PASSWORD")
    for name in names:
        monkeypatch.setenv(name, f"value-of-{name}")
    assert upload(prepare(trace_tree(trace(1, 0)))).dataset_id == "d41d8"
    assert endpoint in hub.paths
    assert "/api-token-auth/" not in hub.paths


def test_missing_credentials_say_what_to_set(monkeypatch, hub):
    monkeypatch.delenv("GRAPHISTRY_PASSWORD")
    with pytest.raises(ExportError, match=r"GRAPHISTRY_PASSWORD is missing.*GRAPHISTRY_TOKEN; nothing was sent"):
        prepare(trace_tree(trace(1, 0)))
    monkeypatch.delenv("GRAPHISTRY_USERNAME")
    with pytest.raises(ExportError, match="no Graphistry credentials: set"):
        credentials()
    assert hub.requests == []


def test_a_host_that_is_none_is_refused(monkeypatch, hub):
    monkeypatch.setenv("GRAPHISTRY_HOSTNAME", "evil.example/path?x=")
    with pytest.raises(ExportError, match="not a host name"):
        credentials()
    monkeypatch.setenv("GRAPHISTRY_HOSTNAME", "https://hub.example.com/")
    monkeypatch.delenv("GRAPHISTRY_PROTOCOL")
    assert credentials()["server"] == "hub.example.com"
    assert credentials()["protocol"] == "https"


def test_the_users_own_graphistry_session_is_left_alone(hub):
    import graphistry

    graphistry.PyGraphistry.session.org_name = "mine"
    graphistry.otel(enabled=True)
    try:
        upload(prepare(trace_tree(trace(1, 0))))
        assert graphistry.PyGraphistry.session.org_name == "mine"
        assert graphistry.PyGraphistry.session.api_token is None
        assert graphistry.otel()[0] is True
    finally:
        graphistry.PyGraphistry.session.org_name = None
        graphistry.otel(reset=True)


def test_colours_are_those_of_the_views():
    assert {kind: look["light"] for kind, look in (theme.SPANS | theme.NODES).items()} == connector.COLOURS
