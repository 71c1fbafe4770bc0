"""A graph on a Graphistry server: asked for, announced, made private before the first row, given up after a deadline.

``graphistry.plot()`` would send the rows first and set privacy afterwards, so that an account without the right to
share leaves a public graph behind; and it waits without limit. So the same steps are taken in a safer order with
pygraphistry's own uploader: log in, create an empty dataset, make it private, and only then send rows. Each step is
taken only while somebody still waits for it.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .. import escape, secrets
from ..errors import ExportError
from ..progress import Progress, Step, silent
from ..values import GraphFrames

if TYPE_CHECKING:
    from pandas import DataFrame

HUB = "hub.graphistry.com"
#: What may leave the machine. Whatever else a frame holds stays here.
NODE_COLUMNS = ("id", "kind", "label", "trace_id", "start_ns", "duration_s", "tokens", "status", "x", "y")
EDGE_COLUMNS = ("source", "target", "kind", "count", "p50_s", "p95_s")
MAX_NODES = 100_000

_LOGINS = (
    {"personal_key_id": "GRAPHISTRY_PERSONAL_KEY_ID", "personal_key_secret": "GRAPHISTRY_PERSONAL_KEY_SECRET"},
    {"username": "GRAPHISTRY_USERNAME", "password": "GRAPHISTRY_PASSWORD"},
    {"token": "GRAPHISTRY_TOKEN"},
)
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:]+\](:\d+)?")
_FILES = "%llama graph --out FOLDER   (the same graph as files)"
# The light colours of views/theme.py, which is a floor above; a test compares them.
COLOURS = {
    "cell": "#5f6b76",
    "chat": "#0072b2",
    "queue": "#8f7000",
    "prefill": "#b5629a",
    "decode": "#00866a",
    "other": "#6e6e6e",
    "notebook": "#3f4851",
    "trace": "#5b6fc0",
    "model": "#c44e00",
    "device": "#8f7000",
    "error": "#c62f1d",
}
_VIEW = {"play": 0, "lockedX": True, "lockedY": True, "splashAfter": False}


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What :func:`upload` would send where: nothing but these columns of these rows. ``token`` names this plan."""

    host: str
    node_rows: int
    node_columns: tuple[str, ...]
    edge_rows: int
    edge_columns: tuple[str, ...]
    frames: GraphFrames = field(repr=False)
    login: Mapping[str, str] = field(repr=False)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A private graph that is on the server."""

    url: str
    dataset_id: str


def credentials() -> dict[str, str]:
    """Arguments of pygraphistry's ``register``: a personal key, else name and password, else a token.

    From :mod:`..secrets`, with ``server`` and ``protocol``. Raises :class:`ExportError` that says what to set when
    none is there or only half of one.
    """
    half = ""
    for names in _LOGINS:
        found = {argument: value for argument, name in names.items() if (value := secrets.get(name))}
        if len(found) == len(names):
            protocol, _, host = (secrets.get("GRAPHISTRY_HOSTNAME") or HUB).strip().rpartition("://")
            protocol = secrets.get("GRAPHISTRY_PROTOCOL") or protocol or "https"
            host = host.rstrip("/")
            if not _HOST.fullmatch(host) or protocol not in ("http", "https"):
                raise ExportError(
                    f"GRAPHISTRY_HOSTNAME is not a host name: {escape.plain(host)[:80]!r}",
                    hint="GRAPHISTRY_HOSTNAME=hub.graphistry.com",
                )
            return found | {"server": host, "protocol": protocol}
        if found:
            half = f" ({' and '.join(n for a, n in names.items() if a not in found)} is missing)"
    raise ExportError(
        f"no Graphistry credentials{half}: set GRAPHISTRY_PERSONAL_KEY_ID and GRAPHISTRY_PERSONAL_KEY_SECRET, or "
        "GRAPHISTRY_USERNAME and GRAPHISTRY_PASSWORD, or GRAPHISTRY_TOKEN; nothing was sent",
        hint=_FILES,
    )


def prepare(frames: GraphFrames) -> UploadPlan:
    """The upload as it would be; sends nothing and loads no library. Raises :class:`ExportError` without credentials.

    The server refuses empty and mostly empty columns: the former are left out, a missing token count is sent as 0.
    Labels lose ``<`` and ``>``, because the server's page shows them as HTML.
    """
    login = credentials()
    if len(frames.nodes) > MAX_NODES:
        raise ExportError(
            f"{len(frames.nodes):,} nodes are more than the {MAX_NODES:,} that one graph takes",
            hint="%llama graph TRACE_ID --graphistry",
        )
    nodes, edges = _sendable(frames.nodes, NODE_COLUMNS), _sendable(frames.edges, EDGE_COLUMNS)
    return UploadPlan(
        login["server"],
        len(nodes),
        tuple(nodes.columns),
        len(edges),
        tuple(edges.columns),
        GraphFrames(nodes, edges),
        login,
    )


def upload(plan: UploadPlan, deadline_s: float = 30.0, on_progress: Progress = silent) -> Uploaded:
    """Send the graph, private; raises :class:`ExportError` with the reason when it did not get there in time.

    ``on_progress`` is told what is being done, on another thread.

    Runs on a thread of its own; after the deadline that thread begins nothing new.
    """
    job = _Upload(plan, on_progress)
    worker = threading.Thread(target=job.run, name="llamatelemetry-graphistry", daemon=True)
    worker.start()
    worker.join(deadline_s)
    if worker.is_alive():
        job.given_up.set()
        raise ExportError(
            f"{plan.host} did not answer within {deadline_s:g} s while {job.doing}; {job.left_behind()}", hint=_FILES
        )
    if job.error is not None:
        raise job.explain(job.error) from job.error
    assert job.done is not None
    return job.done


class _GivenUp(Exception):  # noqa: N818 (nothing went wrong here: nobody waits any more)
    """The caller has stopped waiting."""


class _Upload:
    """One upload: how far it has come, and what is on the server by now."""

    def __init__(self, plan: UploadPlan, on_progress: Progress) -> None:
        self.plan = plan
        self.on_progress = on_progress
        self.given_up = threading.Event()
        self.doing = "loading pygraphistry"
        self.dataset_id: str | None = None
        self.private = False
        self.done: Uploaded | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.done = self._send()
        except Exception as error:  # noqa: BLE001 (pygraphistry raises bare Exceptions; the caller gets all of them)
            self.error = error

    def _step(self, doing: str) -> None:
        if self.given_up.is_set():
            raise _GivenUp
        self.doing = doing
        self.on_progress(Step(doing))

    def _send(self) -> Uploaded:
        self._step(self.doing)
        import graphistry

        if not callable(getattr(graphistry, "client", None)):
            raise ExportError("this pygraphistry has no sessions of its own", hint='%pip install -U "graphistry>=0.36"')
        plan = self.plan
        with _users_session_untouched(graphistry):
            self._step("logging in")
            client = graphistry.client()
            client.register(api=3, **plan.login)
            graph = (
                client.nodes(_arrow(plan.frames.nodes), "id")
                .edges(_arrow(plan.frames.edges), "source", "target")
                .bind(point_title="label", point_x="x", point_y="y")
                .encode_point_color(
                    "kind", categorical_mapping=COLOURS, default_mapping=COLOURS["other"], as_categorical=True
                )
                .privacy(mode="private", notify=False)
                .settings(url_params=_VIEW)
                .name("llamatelemetry traces")
            )
            uploader = graph.plot(skip_upload=True)  # refreshes the login and converts; sends no row
            uploader.token = client.api_token()
            uploader.metadata = {"usertag": "llamatelemetry"}  # not pygraphistry's hash of host name and MAC
            self._step("creating the dataset")
            uploader.create_dataset(
                {
                    "node_encodings": uploader.node_encodings,
                    "edge_encodings": uploader.edge_encodings,
                    "metadata": uploader.metadata,
                    "name": uploader.name,
                    "description": uploader.description,
                }
            )
            self.dataset_id = str(uploader.dataset_id)
            self._step("making the dataset private")
            uploader.maybe_post_share_link(graph)
            self.private = True
            self._step("sending the edges")
            uploader.post_edges_arrow()
            self._step("sending the nodes")
            uploader.post_nodes_arrow()
        query = {"dataset": self.dataset_id, "type": "arrow", "viztoken": uuid.uuid4().hex, **_VIEW}
        return Uploaded(f"{plan.login['protocol']}://{plan.host}/graph/graph.html?{urlencode(query)}", self.dataset_id)

    def left_behind(self) -> str:
        """What is on the server now, in words."""
        if self.dataset_id is None:
            return "nothing was sent"
        name = escape.plain(self.dataset_id)[:80]
        return f"private dataset {name} may be incomplete" if self.private else f"dataset {name} is empty"

    def explain(self, error: BaseException) -> ExportError:
        """What the user reads: no network, login refused, sharing refused, or whatever else the server said."""
        if isinstance(error, ExportError):
            return error
        if isinstance(error, ImportError):
            return ExportError(
                f"pygraphistry cannot be loaded; nothing was sent: {error}", hint="%pip install graphistry"
            )
        plan, said = self.plan, _said(error)
        if _unreachable(error):
            return ExportError(
                f"{plan.host} cannot be reached (no network?); {self.left_behind()}: {said}", hint=_FILES
            )
        if self.doing == "logging in":
            return ExportError(
                f"{plan.host} refused the credentials; nothing was sent: {said}", hint=f"check {_names(plan)}"
            )
        if self.doing == "making the dataset private":
            return ExportError(
                f"{plan.host} refused to make dataset {escape.plain(self.dataset_id)[:80]} private, so no row went; "
                f"the account may lack the right to share: {said}",
                hint=_FILES,
            )
        return ExportError(f"{plan.host} refused while {self.doing}; {self.left_behind()}: {said}", hint=_FILES)


def _sendable(frame: DataFrame, allowed: tuple[str, ...]) -> DataFrame:
    kept = [name for name in allowed if name in frame.columns and (not len(frame) or frame[name].notna().any())]
    made = frame[kept].copy()
    if "label" in made:
        made["label"] = [escape.plain(one).replace("<", "‹").replace(">", "›")[:120] for one in made["label"]]
    if "tokens" in made:
        made["tokens"] = made["tokens"].fillna(0).astype("int64")
    return made


def _arrow(frame: DataFrame) -> Any:
    """The frame as an Arrow table; pandas alone would give 64-bit strings (3.x) or no type without rows (2.x)."""
    import pyarrow as pa

    types = {"int64": pa.int64(), "float64": pa.float64()}
    schema = pa.schema([(name, types.get(str(dtype), pa.string())) for name, dtype in frame.dtypes.items()])
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata({})


@contextmanager
def _users_session_untouched(graphistry: Any) -> Iterator[None]:
    """Keep pygraphistry's process-wide state: its spans stay out of our trace, and a login must not move the user's."""
    otel: Callable[..., Any] | None = getattr(graphistry, "otel", None)
    traced = otel()[0] if otel is not None else False
    if otel is not None:
        otel(enabled=False)
    shared = getattr(getattr(graphistry, "PyGraphistry", None), "session", None)
    organisation = getattr(shared, "org_name", None)
    try:
        yield
    finally:
        if shared is not None:
            shared.org_name = organisation  # every login writes the global session's too (graphistry 0.61)
        if otel is not None:
            otel(enabled=traced)


def _names(plan: UploadPlan) -> str:
    return " and ".join(next(names for names in _LOGINS if set(names) <= set(plan.login)).values())


def _said(error: BaseException) -> str:
    """The server's words, harmless, on one line and capped."""
    response = getattr(error, "response", None)
    body = (response.text if response is not None else "") or str(error)
    status = f"HTTP {response.status_code}: " if response is not None else ""
    return f"{status}{' '.join(escape.plain(body).split())[:240]}" or type(error).__name__


def _unreachable(error: BaseException | None) -> bool:
    import requests

    while error is not None:
        if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
            return True
        if "Max retries exceeded" in str(error) or "Connection aborted" in str(error):
            return True  # pygraphistry turns a failed refresh into ValueError(str(error))
        error = error.__cause__ or error.__context__
    return False
