"""Bytes of a streamed answer → its :class:`TokenEvent` s: the hot path of every token.

Nearly all events of a stream differ from the one before in their text alone. So the bytes around the text are learnt
from an event that was decoded whole, and where the same bytes come again only the text between them is decoded. That is
exact, not a guess: JSON and the framing are context-free, and a string put in a string's place changes nothing but its
value.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Callable
from typing import Any, cast

from .. import clock
from ..errors import LlamaError
from ..values import TokenEvent
from . import failures
from .chunks import decoded, plain_text
from .reception import Reception
from .sse import EventParser, EventSizeError

_TEXT_FIELD = re.compile(rb'"(?:content|text|delta)":[ ]?(?=")')
_MARKER = "\u0001"
# A server whose events differ in more than their text is not learnt from for ever.
_TRIALS = 8

_string_at_start = json.JSONDecoder().raw_decode
# Three times as fast as the class's own constructor, which takes names and defaults.
_new: Callable[[type[TokenEvent], tuple[Any, ...]], TokenEvent] = tuple.__new__


def _decoder() -> Callable[[bytes], Any]:
    # Four times as fast where it is installed; json is always there, and what only json takes is taken with both.
    quick: Callable[[bytes], Any] | None = None
    with contextlib.suppress(ImportError):
        quick = cast("Callable[[bytes], Any]", importlib.import_module("orjson").loads)

    def loads(payload: bytes) -> Any:
        if quick is not None:
            with contextlib.suppress(ValueError):
                return quick(payload)
        return json.loads(payload.decode())

    return loads


_loads = _decoder()


class Reader:
    """Fills ``reception`` from bytes in any pieces; ``keep`` keeps the events in :attr:`events`.

    :attr:`over` tells that nothing more is to come, :attr:`failure` what the stream said or did that ended it in error;
    the events before it are still returned.
    """

    def __init__(self, reception: Reception, *, keep: bool = False) -> None:
        self.reception = reception
        self.parser = EventParser()
        self.events: list[TokenEvent] = []
        self.failure: LlamaError | None = None
        self.over = False
        self._keep = keep
        self._texts, self._times = reception.texts, reception.times
        # What stands before and after the text, quotes included: in a whole read, and in an event's payload.
        self._read = (b"", b"")
        self._event = (b"", b"")
        self._learnt_at = -1
        self._trials = 0

    def feed(self, data: bytes) -> list[TokenEvent]:
        """The events that ``data`` completes, all with the time of this call."""
        before, after = self._read
        if before and data.startswith(before) and data.endswith(after) and not self.parser.held:
            try:
                text = data[len(before) : -len(after)].decode()
                if not text.isprintable() or "\\" in text or '"' in text:
                    text = _string(text)
            except ValueError:  # the long way says what it is
                return self._feed(data)
            if text:
                now, times = clock.now_ns(), self._times
                event = _new(TokenEvent, (now, "text", text, len(times), None, None, None, None, ()))
                self._texts.append(text)
                times.append(now)
                if self._keep:
                    self.events.append(event)
                return [event]
        return self._feed(data)

    @property
    def progress(self) -> tuple[int, int]:
        """What grows with everything that was completed, comments included."""
        return self.parser.blocks, len(self._times)

    def _feed(self, data: bytes) -> list[TokenEvent]:
        now, whole, events = clock.now_ns(), not self.parser.held, list[TokenEvent]()
        try:
            payloads = self.parser.feed(data)
            alone = data if whole and len(payloads) == 1 and not self.parser.held else b""
            for payload in payloads:
                self._payload(payload, alone, now, events)
                if self.reception.done:
                    break
        except EventSizeError:
            self.failure = failures.malformed("the server sends no end of event", data)
        except LlamaError as exc:
            self.failure = exc
        self.over = self.reception.done or self.failure is not None
        return events

    def _payload(self, payload: bytes, alone: bytes, now: int, events: list[TokenEvent]) -> None:
        if payload == b"[DONE]":
            self.reception.done = True
            return
        before, after = self._event
        if before and payload.startswith(before) and payload.endswith(after):
            with contextlib.suppress(ValueError):
                if text := _string(payload[len(before) : -len(after)].decode()):
                    events.append(self._said(now, text))
                    return
        try:
            chunk = _loads(payload)
        except (ValueError, RecursionError) as exc:
            raise failures.malformed("the stream holds something that is not JSON", payload) from exc
        plain = plain_text(chunk)
        if plain and self.reception.response_id is not None:
            self._learn(payload, plain, alone)
            events.append(self._said(now, plain))
            return
        try:
            for event in decoded(chunk, self.reception, now):
                if self._keep:
                    self.events.append(event)
                events.append(event)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as exc:
            raise failures.malformed("the stream holds an event of unknown form", payload) from exc

    def _said(self, now: int, text: str) -> TokenEvent:
        event = self.reception.token(now, "text", text)
        if self._keep:
            self.events.append(event)
        return event

    def _learn(self, payload: bytes, text: str, alone: bytes) -> None:
        """Keep the bytes around ``text``, when a marker in its place is what is then read."""
        learnt_at, self._learnt_at = self._learnt_at, len(self._times)
        self._trials = self._trials + 1 if learnt_at + 1 == self._learnt_at else 0
        fields = list(_TEXT_FIELD.finditer(payload))
        if self._trials > _TRIALS or not fields or b"\n" in payload:
            return
        start = fields[-1].end()
        rest = payload[start:].decode()
        value, end = _string_at_start(rest)
        before, after = payload[: start + 1], rest[end - 1 :].encode()
        if value != text or plain_text(_loads(before + b"\\u0001" + after)) != _MARKER:
            return
        self._event = (before, after)
        lead, _, trail = alone.rpartition(payload)
        self._read = (lead + before, after + trail) if trail in (b"\n\n", b"\r\n\r\n") else (b"", b"")


def _string(quoted: str) -> str:
    """The text that ``quoted`` is in JSON, without its quotes; raises ``ValueError`` when it is not one string."""
    value, end = _string_at_start(f'"{quoted}"')
    if end != len(quoted) + 2:
        raise ValueError("more than a string")
    return cast("str", value)
