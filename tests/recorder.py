"""A call observer that writes down what it is told, as the telemetry room would see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llamatelemetry_jupyter.values import JSON, Outcome


@dataclass
class Recorded:
    """A :class:`Call` that writes down how it ended."""

    operation: str
    model: str | None
    address: str
    port: int
    request: Mapping[str, JSON]
    trace_id: str = "0af7651916cd43dd8448eb211c80319c"
    span_id: str = "b7ad6b7169203331"
    outcomes: list[Outcome | None] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def fail(self, error: BaseException, outcome: Outcome | None = None) -> None:
        self.errors.append(error)
        self.outcomes.append(outcome)

    @property
    def outcome(self) -> Outcome:
        assert len(self.outcomes) == 1, "a call ends exactly once"
        assert self.outcomes[0] is not None
        return self.outcomes[0]


@dataclass
class RecordedStep:
    name: str
    attributes: dict[str, Any]
    failed: str | None = None

    def set(self, attributes: Mapping[str, Any], /) -> None:
        self.attributes |= attributes

    def error(self, kind: str, message: str = "") -> None:
        self.failed = kind


class Recorder:
    def __init__(self) -> None:
        self.calls: list[Recorded] = []
        self.steps: list[RecordedStep] = []

    def start(
        self, operation: str, model: str | None, address: str, port: int, request: Mapping[str, JSON]
    ) -> Recorded:
        self.calls.append(Recorded(operation, model, address, port, request))
        return self.calls[-1]

    @contextmanager
    def step(self, name: str, attributes: Mapping[str, Any]) -> Iterator[RecordedStep]:
        self.steps.append(RecordedStep(name, dict(attributes)))
        yield self.steps[-1]

    @property
    def last(self) -> Recorded:
        return self.calls[-1]
