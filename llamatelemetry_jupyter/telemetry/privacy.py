"""What is recorded of prompts and answers, and what may leave: nothing of them unless the user says so.

Three gates. **Recording**: content goes on spans only where it is captured, for a session (:func:`capture`) or inside a
block (:func:`capturing`); other libraries' content is left out of our rows by the same switch. **Masking**: secrets are
masked and the user's :func:`redact` functions are asked in all text that becomes a row, captured or not. **Leaving**:
:func:`outgoing` is what an export sends unless it was asked for everything: no content, no path, no name of a host.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ..values import JSON, SpanRow
from . import masking, semconv

Redactor = Callable[[str, str], "str | None"]

_SWITCH = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_OURS = __name__.partition(".")[0]
_FAILED = "[redaction failed]"
_MAX_MESSAGE = 1024
_NUMBERS = frozenset({int, float, bool, type(None)})

#: Attributes that hold prompts, answers, documents or what a tool was given, in the vocabularies of OpenTelemetry,
#: OpenInference, Traceloop, Vercel, MLflow, Langfuse and Pydantic; names that begin so with a dot after it, too.
CONTENT = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.prompt", "gen_ai.completion", "gen_ai.content",
    "gen_ai.event.content", "gen_ai.request.stop_sequences", "gen_ai.retrieval", "gen_ai.evaluation.explanation",
    "llm.input_messages", "llm.output_messages", "llm.prompts", "llm.completions", "llm.prompt_template",
    "llm.invocation_parameters", "llm.tools", "llm.function_call", "llm.request.functions", "llm.user", "llm.headers",
    "input.value", "output.value", "embedding.embeddings", "embedding.text", "embedding.vector", "retrieval.documents",
    "reranker", "document.content", "message", "messages", "tool.parameters", "tool.description", "tool_call",
    "traceloop.entity.input", "traceloop.entity.output", "traceloop.prompt", "traceloop.association.properties",
    "langfuse.observation.input", "langfuse.observation.output", "langfuse.trace.input", "langfuse.trace.output",
    "mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.chat.messages", "mlflow.chat.tools",
    "ai.prompt", "ai.response.text", "ai.response.object", "ai.response.toolCalls", "ai.toolCall.args",
    "ai.toolCall.result", "ai.value", "ai.values", "ai.embedding", "ai.embeddings",
    "all_messages_events", "all_messages", "final_result", "tool_arguments", "tool_response", "logfire.msg",
    "db.statement", "db.query.text", "db.query.parameter", "db.operation.parameter", "messaging.message.body",
    "http.request.body", "http.response.body", "http.request.header", "http.response.header",
    "exception.message", "exception.stacktrace", semconv.STATUS_MESSAGE,
)  # fmt: skip
_NO_CONTENT = frozenset({"gen_ai.prompt.name", "gen_ai.prompt.version", "message.id", "message.type"})
#: Attributes that say where and whose a machine is: paths, hosts, users, command lines, environments.
LOCAL = (
    semconv.NOTEBOOK_PATH, "host.name", "host.id", "host.ip", "host.mac", "process.command", "process.command_args",
    "process.command_line", "process.executable.path", "process.owner", "process.user", "process.real_user",
    "process.environment_variable", "process.working_directory", "code.filepath", "code.file.path", "code.stacktrace",
    "code.url", "user", "enduser", "client", "source", "net.host.name", "net.sock", "session.user", "file.path",
    "file.directory", "url.full", "url.original", "url.query", "http.url", "http.target", "http.client_ip", "container",
    "k8s", "device.id", "cloud.account.id", "cloud.resource_id", "aws.ecs", "langfuse.user", "ai.telemetry.metadata",
)  # fmt: skip
#: Attributes that name the other end of a connection: this machine's own address may be told.
_ENDS = frozenset(
    {semconv.SERVER_ADDRESS, "net.peer.name", "net.peer.ip", "network.peer.address", "peer.address", "peer.service"}
)
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)(:\d+)?$")
_HIDDEN = "[host]"
#: Hosts' names that stand in ordinary text.
_ORDINARY = frozenset({"localhost", "kernel", "notebook", "jupyter", "server", "llama", "chat", "root", "user", "home"})

_session: bool | None = None
_block: ContextVar[bool | None] = ContextVar("llamatelemetry_capture", default=None)
_redactors: tuple[Redactor, ...] = ()


# ------------------------------------------------------------------------------------------------------------ recording


def capture(on: bool | None) -> None:
    """Record prompts and answers from now on, or not; ``None``: as the environment says, which is the beginning."""
    global _session  # noqa: PLW0603 (one session per process)
    _session = on


@contextmanager
def capturing(on: bool = True) -> Iterator[None]:
    """A block whose calls are recorded with prompts and answers, whatever the session's switch says."""
    token = _block.set(on)
    try:
        yield
    finally:
        _block.reset(token)


def captured() -> bool:
    """Whether the content of a call that is made now is recorded."""
    here = _block.get()
    return captured_in_session() if here is None else here


def captured_in_session() -> bool:
    """The session's switch; where it was not used that of the GenAI instrumentations, in its new and old spelling."""
    if _session is not None:
        return _session
    return os.environ.get(_SWITCH, "").strip().upper() in ("SPAN_ONLY", "SPAN_AND_EVENT", "TRUE")


def redact(function: Redactor) -> Callable[[], None]:
    """Ask ``function(name, text)`` about every text that is about to be recorded; returns the function that ends it.

    ``name`` is the attribute's name, ``"name"`` for a span's; what it returns is recorded instead, ``None`` leaves the
    attribute out. It runs on background threads, too, and may see a text twice; when it raises, nothing of the text is
    recorded. A function that is defined and given again takes the place of the one before, so that a cell may be run
    again.
    """
    global _redactors  # noqa: PLW0603 (one session per process)
    where = _where(function)
    _redactors = (*(known for known in _redactors if where is None or _where(known) != where), function)
    return lambda: _forget(function)


def _forget(function: Redactor) -> None:
    global _redactors  # noqa: PLW0603 (one session per process)
    _redactors = tuple(known for known in _redactors if known is not function)


def _where(function: Redactor) -> tuple[str, str] | None:
    name = getattr(function, "__qualname__", "<lambda>")
    return None if "<lambda>" in name else (str(getattr(function, "__module__", "")), name)


def redactors() -> tuple[Redactor, ...]:
    """The functions of :func:`redact` that are in force."""
    return _redactors


def text(name: str, value: str, functions: Sequence[Redactor] | None = None) -> str | None:
    """``value`` as it may be recorded under ``name``: secrets masked, the user's functions (those in force) asked."""
    value = masking.mask(value)
    for function in _redactors if functions is None else functions:
        try:
            changed = function(name, value)
        except Exception:  # noqa: BLE001 (the user's function runs inside other people's code)
            return _FAILED
        if changed is None:
            return None
        value = str(changed)
    return value


def message(said: str) -> str:
    """Why a span failed, as it may stand on the span: masked, 1,024 characters at most."""
    return (text(semconv.STATUS_MESSAGE, said) or "")[:_MAX_MESSAGE]


def clean(
    attributes: dict[str, JSON], *, content: bool, functions: Sequence[Redactor] | None = None
) -> dict[str, JSON]:
    """Attributes as they may be recorded, changed in place; without ``content`` those that hold it are dropped.

    ``functions`` are the user's of :func:`redact`, those in force if none are named.
    """
    asked = _redactors if functions is None else functions
    dropped = [] if content else [name for name in attributes if sort(name) == "content"]
    ordinary: Container[str] = () if asked else masking.ordinary()
    for name, value in attributes.items():
        kind = type(value)
        if kind in _NUMBERS or (kind is str and value in ordinary):
            continue
        if kind is str:
            new: JSON = text(name, str(value), asked)
        else:
            new = _each(value, lambda inner, name=name: text(name, inner, asked) or "")  # type: ignore[misc]
        if new is None:
            dropped.append(name)
        elif new is not value:
            attributes[name] = new
    for name in dropped:
        attributes.pop(name, None)
    return attributes


def allowed(scope: str | None) -> bool:
    """Whether a span of ``scope`` that ends now may keep its content.

    Our own spans have content only where it was captured. Other libraries decide for themselves what they put on
    theirs: it is kept where this session captures content.
    """
    return scope == _OURS or captured_in_session()


def received(row: SpanRow, *, content: bool) -> SpanRow:
    """A row that came from a file or another process, as it may be kept."""
    return dataclasses.replace(
        row, name=text("name", row.name) or "span", attributes=clean(dict(row.attributes), content=content)
    )


# -------------------------------------------------------------------------------------------------------------- leaving


@lru_cache(maxsize=8192)
def sort(name: str) -> Literal["content", "local"] | None:
    """What an attribute of that name holds, as far as names tell."""
    if name in _NO_CONTENT:
        return None
    if any(name == one or name.startswith(f"{one}.") for one in CONTENT):
        return "content"
    if any(name == one or name.startswith(f"{one}.") for one in LOCAL):
        return "local"
    return None


def outgoing(row: SpanRow) -> SpanRow:
    """``row`` without content, paths and names of hosts: what leaves unless everything was asked for."""
    return dataclasses.replace(
        row,
        name=anonymous(row.name),
        error_type=anonymous(row.error_type) if row.error_type else row.error_type,
        cell_id=anonymous(row.cell_id) if row.cell_id else row.cell_id,
        server=_server(row.server) if row.server else row.server,
        model=anonymous(row.model) if row.model else row.model,
        attributes=public(row.attributes),
    )


def public(attributes: Mapping[str, JSON]) -> dict[str, JSON]:
    """Attributes, of a span or a resource, without content, paths and names of hosts."""
    found: dict[str, JSON] = {}
    for name, value in attributes.items():
        if sort(name) is not None:
            continue
        if name in _ENDS:
            found[name] = _end(str(value))
        elif name in (semconv.EVENTS, semconv.LINKS, semconv.RESOURCE):
            found[name] = _nested(value)
        else:
            found[name] = _each(value, anonymous)
    return found


def anonymous(value: str) -> str:
    """``value`` with the last part only of each path, and without this machine's name."""
    if "/" in value or "\\" in value:
        value = _paths().sub(lambda found: _last(found[0]), value)
    host = _host()
    return value.replace(host, _HIDDEN) if host and host in value else value


def _end(address: str) -> str:
    """This machine's own address; of another one only the port."""
    if _LOOPBACK.match(address):
        return address
    name, colon, port = address.rpartition(":")
    return f"{_HIDDEN}:{port}" if colon and port.isdigit() and name else _HIDDEN


def _server(server: str) -> str:
    """The same of a row's server, which may be the name that we gave it."""
    return _end(server) if ":" in server or "." in server else server


def _nested(value: JSON) -> JSON:
    """Events, links and resources: attributes inside follow the same rules."""
    if isinstance(value, list):
        return [_nested(one) for one in value]
    if isinstance(value, dict):
        if isinstance(inner := value.get("attributes"), dict):
            return {**public({k: v for k, v in value.items() if k != "attributes"}), "attributes": public(inner)}
        return public(value)
    return _each(value, anonymous)


def _each(value: JSON, change: Callable[[str], str]) -> JSON:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_each(one, change) for one in value]
    if isinstance(value, dict):
        return {key: _each(one, change) for key, one in value.items()}
    return value


def _last(path: str) -> str:
    return "…/" + re.split(r"[/\\]", path.rstrip("/\\"))[-1]


@lru_cache(maxsize=4)
def _paths_of(home: str, here: str) -> re.Pattern[str]:
    own = "|".join(re.escape(one) for one in sorted({home, here}, key=len, reverse=True) if len(one) > 1)
    # Roots of file systems, so that the path of a URL stays: /v1/chat/completions is no file.
    roots = r"/(?:home|Users|root|kaggle|content|mnt|tmp|var|opt|data|srv|workspaces?|media|private|Volumes|usr|work)"
    tail = r"(?:/[^\s\"'<>|:;,()\\]*)"
    windows = r"\b[A-Za-z]:(?:\\+[^\s\"'<>|:;,()\\]+)+"
    file = r"(?:file|vscode-notebook-cell|vscode-remote|untitled):(?://)?[^\s\"'<>]+"
    return re.compile(rf"{file}|(?:{own}){tail}*|(?<![\w.:/]){roots}{tail}+|(?<![\w/])~{tail}+|{windows}")


def _paths() -> re.Pattern[str]:
    try:
        return _paths_of(str(Path.home()), str(Path.cwd()))
    except OSError:  # the folder has gone
        return _paths_of(str(Path.home()), "")


@lru_cache(maxsize=1)
def _host() -> str | None:
    name = socket.gethostname()
    return name if len(name) >= 4 and name.lower() not in _ORDINARY else None
