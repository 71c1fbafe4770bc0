"""A session whose store is real, and a page whose requests are answered by the real operations on it."""

from __future__ import annotations

import json
from dataclasses import replace

import viewworld as world
from dashboardpage import settle

from llamatelemetry_jupyter import operations
from llamatelemetry_jupyter.errors import LlamaError
from llamatelemetry_jupyter.telemetry import semconv
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.views.model import snapshot


class Session:
    """What the operations use of one."""

    def __init__(self, rows, samples=None):
        self.spans = SpanStore()
        self.samples = samples or world.Memory(
            [*world.host(30, device="GPU-aaaa"), *world.host(30, device="GPU-bbbb"), *world.host(30)],
            world.server(30, busy=[(8, 10), (14, 16), (22, 25)]),
        )
        for row in sorted(rows, key=lambda row: row.end_ns):
            if row.ttft_s is not None:
                self.spans.keep_gaps(row.span_id, [0.01 + 0.02 * (n % 7 == 0) for n in range(95)])
            self.spans.append(row)

    def snapshot(self, **change):
        given = world.session() | {"spans": self.spans, "samples": self.samples} | change
        return snapshot(**given)


def asked_of(session, page):
    """Answer what the page has asked since the last time; returns the operations."""
    sent = page.evaluate("() => harness.sent.splice(0)")
    for one in (one for one in sent if one["op"] != "snapshot"):
        try:
            data = operations.of(session)[one["op"]](progress=lambda *_: None, **one["args"])
            reply = {"type": "reply", "id": one["id"], "ok": True, "data": data}
        except LlamaError as error:
            told = {"what": str(error), "hint": error.hint or ""}
            reply = {"type": "reply", "id": one["id"], "ok": False, "error": told}
        page.evaluate("text => harness.message(JSON.parse(text))", json.dumps(reply, allow_nan=False))
    settle(page)
    return [one["op"] for one in sent]


def called(rows, long=5_000_000):
    chat = {
        semconv.OPERATION_NAME: "chat",
        semconv.INPUT_MESSAGES: json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": "it's\n\x1b[31m"}]}]
        ),
        "gen_ai.request.temperature": 0.5,
        "long": "x" * long,
    }
    return [
        replace(row, attributes=chat, server="127.0.0.1:41234", energy_j=12.5) if row.name.startswith("chat") else row
        for row in rows
    ]
