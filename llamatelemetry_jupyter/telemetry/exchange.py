"""Spans to files and from files: OTLP JSON lines, Chrome trace, Parquet, by the ending of the name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import escape
from ..errors import ExportError
from ..progress import Progress, counted, silent
from ..values import JSON, SampleSource, SpanRow
from . import otlp_json, privacy
from .receiver import unknown
from .wire import Wire, from_row, plain, to_row

if TYPE_CHECKING:
    from .recorded import RecordedSpans
    from .store import SpanStore

#: Ending → what such a file is.
FORMS = {
    ".jsonl": "OTLP, a batch of spans per line",
    ".json": "Chrome trace, for Perfetto",
    ".parquet": "Parquet with ClickHouse's columns",
}


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a file's spans: ``new`` were added, ``known`` were there already, ``unread`` were no spans."""

    new: int
    known: int
    unread: int


def own_resource() -> dict[str, JSON]:
    """What this kernel calls itself: the resource of its tracer provider, else the one that ours would have."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource

    from . import resource

    found = getattr(trace.get_tracer_provider(), "resource", None)
    if not isinstance(found, Resource):
        found = Resource.create(dict(resource.attributes()))
    return {name: plain(value) for name, value in found.attributes.items()}


def resource_of(spans: RecordedSpans) -> dict[str, JSON]:
    """What the kernel of a session of before called itself; empty where its file does not say."""
    told = [one.told for one in spans.descriptions() if one.kind == "kernel"]
    return dict(told[-1]) if told else {}


def write(
    path: Path,
    rows: Sequence[SpanRow],
    resource: Mapping[str, JSON],
    samples: SampleSource | None = None,
    *,
    everything: bool = False,
    on_progress: Progress = silent,
) -> int:
    """Write ``rows`` as what the name's ending says; returns the file's bytes. It appears whole or not at all.

    ``resource`` is what they are of where a row says nothing else, ``samples`` are the counters of a Chrome trace.
    Without ``everything`` content, paths and names of hosts are left out. Raises ExportError.
    """
    if path.suffix not in FORMS:
        known = ", ".join(f"{ending} ({what})" for ending, what in FORMS.items())
        raise ExportError(f"{_shown(path)} ends in none of {known}", hint="%llama export spans.jsonl")
    told: Iterable[SpanRow] = counted(rows, f"writing {path.name}", len(rows), "spans", on_progress)
    if not everything:
        told, resource = map(privacy.outgoing, told), privacy.public(resource)
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        if path.suffix == ".jsonl":
            with part.open("w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in otlp_json.lines(from_row(row, resource) for row in told))
        elif path.suffix == ".json":
            from . import chrome

            chrome.write(part, list(told), samples)
        else:
            from . import parquet

            parquet.write(part, ((row, from_row(row, resource)) for row in told))
        size = part.stat().st_size
        part.replace(path)
    except OSError as error:
        raise ExportError(
            f"{_shown(path)} cannot be written: {_why(error)}", hint="%llama export OTHER.jsonl"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return size


def read(path: Path, store: SpanStore, on_progress: Progress = silent) -> Added:
    """Add the spans of a file to ``store``, each once, oldest first; raises ExportError when it holds none.

    A line that is no OTLP (the last one of a file that was cut) is passed over and counted.
    """
    own = own_resource()
    rows: list[SpanRow] = []
    unread = 0
    for span in counted(_spans(path), f"reading {path.name}", None, "spans", on_progress):
        try:
            rows.append(privacy.received(to_row(span, own, privacy.public(own)) if span else _no_span(), content=True))
        except ValueError:
            unread += 1
    if not rows:
        raise ExportError(f"no spans are in {_shown(path)}", hint="%llama import spans.jsonl")
    new = unknown(store, rows)
    for row in sorted(new, key=lambda one: one.end_ns):
        store.append(row)
    return Added(len(new), len(rows) - len(new), unread)


def _no_span() -> SpanRow:
    raise ValueError("no span")


def _spans(path: Path) -> Iterator[Wire | None]:
    """The spans of a file, ``None`` for a part of it that is none."""
    if path.suffix not in FORMS:
        known = "OTLP comes in .jsonl or .json, Parquet in .parquet"
        raise ExportError(f"{_shown(path)} is no file of spans: {known}", hint="%llama import spans.jsonl")
    try:
        if path.suffix == ".parquet":
            from . import parquet

            yield from parquet.read(path)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in filter(str.strip, file):
                    yield from _line(line)
        else:
            yield from otlp_json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{_shown(path)} cannot be read: {_why(error)}", hint="%llama import spans.jsonl") from error
    except ValueError as error:
        what = "it is a picture for Perfetto, from which spans do not come back" if _is_chrome(path) else str(error)
        said = escape.plain(what).replace("\n", " ")[:160]
        raise ExportError(f"{_shown(path)} cannot be read: {said}", hint="%llama import spans.jsonl") from error


def _line(line: str) -> Iterator[Wire | None]:
    try:
        yield from otlp_json.loads(line)
    except ValueError:
        yield None


def _is_chrome(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    with path.open("rb") as file:
        return b'"traceEvents"' in file.read(4096)


def _shown(path: Path) -> str:
    return escape.plain(path).replace("\n", " ")


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
