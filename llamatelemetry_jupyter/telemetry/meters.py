"""Our instruments on OpenTelemetry's providers: on our own, and on the one that the user has set.

A provider is set once per process and its instruments cannot be taken away: there is one set of ours per provider,
which a session switches on and off, so that counts go on over a reload.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from .. import __version__
from . import resource
from .instruments import INSTRUMENTS, Instrument, Vocabulary, vocabulary
from .observed import Observed
from .tally import Example, Scalar, Tally
from .tracer import SCOPE

_ATTRIBUTE = "_llamatelemetry_meters"
_lock = threading.RLock()
_own: Own | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """What this process has once: a provider for what is observed and for other libraries, a tally for the rest."""

    pid: int
    provider: MeterProvider
    reader: InMemoryMetricReader
    resource: Resource
    tally: Tally


def ours() -> Own:
    """Our provider and tally in this process; a forked child has its own."""
    global _own  # noqa: PLW0603 (OpenTelemetry's provider is the process's, too)
    found = _own
    if found is not None and found.pid == os.getpid():
        return found
    with _lock:
        if _own is None or _own.pid != os.getpid():
            reader, told = InMemoryMetricReader(), Resource.create(dict(resource.attributes()))
            provider = MeterProvider([reader], told, shutdown_on_exit=False)
            _own = Own(os.getpid(), provider, reader, told, Tally(vocabulary()))
        return _own


def providers() -> list[metrics.MeterProvider]:
    """Our provider, which is set where nobody has set one, and the user's where somebody has."""
    own = ours().provider
    with _lock:
        if hasattr(metrics.get_meter_provider(), "on_set_meter_provider"):  # the API's stand-in: nobody has set one
            metrics.set_meter_provider(own)
    theirs = metrics.get_meter_provider()
    return [own] if theirs is own else [own, theirs]


class Meters:
    """Our instruments on one provider. Those that are observed ask ``source``, and have no value without one.

    ``recorded`` are the methods of the others; our own provider has none, its values are in the tally.
    """

    def __init__(self, provider: metrics.MeterProvider, words: Vocabulary, *, own: bool) -> None:
        self.pid = os.getpid()
        self.source: Observed | None = None
        meter = provider.get_meter(SCOPE, __version__)
        self.recorded: dict[str, Callable[..., None]] = {}
        named: dict[str, Callable[..., None]] = {}  # two figures may share a name in one vocabulary
        for one in INSTRUMENTS:
            if (name := one.name(words)) is None:
                continue
            if one.kind.startswith("observed"):
                self._observe(meter, one, name)
            elif not own:
                named[name] = self.recorded[one.id] = named.get(name) or _recorded(meter, one, name)

    @classmethod
    def of(cls, provider: Any) -> Meters | None:
        """The set on ``provider``, made when it has none; ``None`` for one whose locks a fork may have left held."""
        with _lock:
            found: Meters | None = getattr(provider, _ATTRIBUTE, None)
            if found is None:
                found = cls(provider, vocabulary(), own=provider is ours().provider)
                setattr(provider, _ATTRIBUTE, found)
        return found if found.pid == os.getpid() else None

    def record(self, which: str, values: Sequence[float], about: Mapping[str, Scalar], example: Example | None) -> None:
        """Hand ``values`` to the provider, with their span as the current one: the SDK keeps it as an example."""
        inside: Context | None = None
        if example is not None:
            span = SpanContext(int(example[0], 16), int(example[1], 16), False, TraceFlags(TraceFlags.SAMPLED))
            inside = set_span_in_context(NonRecordingSpan(span), Context())
        for value in values:
            self.recorded[which](value, about, inside)

    def _observe(self, meter: metrics.Meter, one: Instrument, name: str) -> None:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            values = self.source.values(one.id) if self.source is not None else []
            return [Observation(value, dict(about)) for value, about in values]

        match one.kind:
            case "observed counter":
                meter.create_observable_counter(name, [observe], one.unit, one.about)
            case "observed level":
                meter.create_observable_up_down_counter(name, [observe], one.unit, one.about)
            case _:
                meter.create_observable_gauge(name, [observe], one.unit, one.about)


def _recorded(meter: metrics.Meter, one: Instrument, name: str) -> Callable[..., None]:
    if one.kind == "counter":
        return meter.create_counter(name, one.unit, one.about).add
    return meter.create_histogram(name, one.unit, one.about, explicit_bucket_boundaries_advisory=one.buckets).record


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 (another thread of the parent may have held it)
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
