"""A graph on a Graphistry server: asked for, announced, private, and given up after a deadline.

pygraphistry sends the data before it sets privacy and waits without limit; so nothing is sent before :func:`upload`,
what would go is announced by :func:`prepare`, and the upload runs on a thread that we stop waiting for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import escape, secrets
from ..errors import ExportError
from ..values import GraphFrames

_HUB = "hub.graphistry.com"
_COLOURS = {"cell": "#5f6b76", "chat": "#0072b2", "queue": "#8f7000", "prefill": "#b5629a", "decode": "#00866a"}


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What would be sent where; ``login`` are the arguments of pygraphistry's ``register``."""

    host: str
    node_rows: int
    node_columns: tuple[str, ...]
    edge_rows: int
    edge_columns: tuple[str, ...]
    frames: GraphFrames = field(repr=False)
    login: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A graph that is on the server."""

    url: str
    dataset_id: str | None


def credentials() -> dict[str, str] | None:
    """Arguments of ``register`` from the secrets, ``None`` when there are none."""
    for names in (
        {"personal_key_id": "GRAPHISTRY_PERSONAL_KEY_ID", "personal_key_secret": "GRAPHISTRY_PERSONAL_KEY_SECRET"},
        {"username": "GRAPHISTRY_USERNAME", "password": "GRAPHISTRY_PASSWORD"},
        {"token": "GRAPHISTRY_TOKEN"},
    ):
        found = {argument: value for argument, name in names.items() if (value := secrets.get(name))}
        if len(found) == len(names):
            return found
    return None


def prepare(frames: GraphFrames) -> UploadPlan:
    """The upload as it would be; sends nothing. Raises :class:`ExportError` when credentials are missing."""
    login = credentials()
    if login is None:
        raise ExportError(
            "no Graphistry credentials: set GRAPHISTRY_PERSONAL_KEY_ID and GRAPHISTRY_PERSONAL_KEY_SECRET "
            "(or GRAPHISTRY_USERNAME and GRAPHISTRY_PASSWORD) in the environment; nothing was sent",
            hint="%llama graph --out FOLDER   (the same graph as files)",
        )
    host = secrets.get("GRAPHISTRY_HOSTNAME") or _HUB
    login |= {"server": host, "protocol": secrets.get("GRAPHISTRY_PROTOCOL") or "https"}
    nodes, edges = frames.nodes, frames.edges
    return UploadPlan(host, len(nodes), tuple(nodes.columns), len(edges), tuple(edges.columns), frames, login)


def upload(plan: UploadPlan, deadline_s: float = 60.0) -> Uploaded:
    """Send the graph, private; raises :class:`ExportError` with the reason when it did not get there in time."""
    result: list[Uploaded] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            result.append(_send(plan))
        except Exception as error:  # noqa: BLE001 (pygraphistry raises bare Exceptions; the caller gets all of them)
            problem.append(error)

    worker = threading.Thread(target=work, name="llamatelemetry-graphistry", daemon=True)
    worker.start()
    worker.join(deadline_s)
    if worker.is_alive():
        raise ExportError(
            f"{plan.host} did not take the graph within {deadline_s:.0f} s", hint="%llama graph --out FOLDER"
        )
    if problem:
        raise _explain(plan, problem[0]) from problem[0]
    return result[0]


def _send(plan: UploadPlan) -> Uploaded:
    import graphistry

    if callable(switch := getattr(graphistry, "otel", None)):
        switch(enabled=False)  # else the upload's own spans land in the trace that is being exported
    make: Callable[[], Any] | None = getattr(graphistry, "client", None)
    if make is None:
        raise ExportError("this graphistry has no sessions of its own", hint='%pip install -U "graphistry>=0.36"')
    client = make()
    client.register(api=3, **plan.login)
    graph = (
        client.nodes(plan.frames.nodes, "id")
        .edges(plan.frames.edges, "source", "target")
        .bind(point_title="label", point_x="x", point_y="y")
        .encode_point_color("kind", categorical_mapping=_COLOURS, default_mapping="#6e6e6e", as_categorical=True)
        .privacy(mode="private")
        .settings(url_params={"play": 0, "lockedX": True, "lockedY": True, "splashAfter": False})
        .name("llamatelemetry traces")
    )
    sent = graph.plot(render="g")
    return Uploaded(str(sent._url), getattr(sent, "_dataset_id", None))


def _explain(plan: UploadPlan, error: BaseException) -> ExportError:
    if isinstance(error, ExportError):
        return error
    said = escape.plain(str(error))[:200]
    kind = type(error).__name__
    if kind in ("ConnectionError", "ConnectTimeout", "NewConnectionError") or "Max retries exceeded" in said:
        return ExportError(f"{plan.host} cannot be reached", hint="%llama graph --out FOLDER")
    if "share" in said or "Permission denied" in said:
        return ExportError(
            f"{plan.host} took the graph but refused to make it private: {said}; delete it there",
            hint=f"https://{plan.host}",
        )
    return ExportError(f"{plan.host} refused the graph: {kind}: {said}", hint="%llama graph --out FOLDER")
