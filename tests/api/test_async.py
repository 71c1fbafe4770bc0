"""AsyncLlamaCppClient against the real engine: what asyncio adds. The rest it shares with the synchronous one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from api_loopback import loopback
from realengine import Engine
from recorder import Recorder

from llamatelemetry_jupyter.api.async_client import AsyncLlamaCppClient
from llamatelemetry_jupyter.api.client import LlamaCppClient
from llamatelemetry_jupyter.errors import ContextFullError, RequestError, UnauthorizedError

HELLO = [{"role": "user", "content": "Say hello."}]
FIXED = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
LONG = {"max_tokens": 900, "temperature": 0, "ignore_eos": True}
pytestmark = [pytest.mark.engine, pytest.mark.floor]


@asynccontextmanager
async def connected(engine: Engine, recorder: Recorder | None = None) -> AsyncIterator[AsyncLlamaCppClient]:
    async with AsyncLlamaCppClient(engine.url, engine.key, recorder, timeout_s=60) as client:
        yield client


async def idle(client: AsyncLlamaCppClient) -> None:
    while any(slot.busy for slot in await client.slots()):
        await asyncio.sleep(0.01)


def run(engine: Engine, recorder: Recorder, fn: Callable[[AsyncLlamaCppClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with connected(engine, recorder) as client:
            await asyncio.wait_for(fn(client), 60)
            await asyncio.wait_for(idle(client), 20)

    asyncio.run(main())


def test_the_same_answers_as_the_synchronous_client(engine: Engine, client: LlamaCppClient) -> None:
    async def ask() -> list[object]:
        async with connected(engine) as aclient:
            return [
                (await aclient.chat(HELLO, **FIXED)).text,
                (await aclient.complete("One, two,", **FIXED)).text,
                (await aclient.respond("Say hello.", **FIXED)).text,
                (await aclient.message(HELLO, **FIXED)).text,
                await aclient.tokenize("a llama"),
                await aclient.pieces("é🦙"),
                await aclient.apply_template(HELLO),
                await aclient.props(),
                [slot.id for slot in await aclient.slots()],
                [model.size_bytes for model in await aclient.models()],
                await aclient.health(),
                await aclient.embeddings([]),
            ]

    assert asyncio.run(ask()) == [
        client.chat(HELLO, **FIXED).text,
        client.complete("One, two,", **FIXED).text,
        client.respond("Say hello.", **FIXED).text,
        client.message(HELLO, **FIXED).text,
        client.tokenize("a llama"),
        client.pieces("é🦙"),
        client.apply_template(HELLO),
        client.props(),
        [slot.id for slot in client.slots()],
        [model.size_bytes for model in client.models()],
        client.health(),
        [],
    ]


def test_events_and_accounts(engine: Engine, recorder: Recorder) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        async with client.chat_stream(HELLO, keep_events=True, **FIXED) as stream:
            events = [event async for event in stream]
        assert [event for event in events if event.kind == "text"][-1].index == 5
        assert stream.answer.tokens == tuple(events)
        assert stream.answer.finish_reason == "length"
        assert stream.answer.trace_id == recorder.last.trace_id
        assert recorder.last.outcome.output_tokens == 6
        assert stream.answer.timings.prefill_s is not None
        assert stream.ended

    run(engine, recorder, fn)


def test_answers_run_side_by_side(engine: Engine, recorder: Recorder) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        asked = [client.chat(HELLO, max_tokens=2 + n, ignore_eos=True) for n in range(4)]
        assert [answer.output_tokens for answer in await asyncio.gather(*asked)] == [2, 3, 4, 5]

    run(engine, recorder, fn)
    assert all(len(call.outcomes) == 1 and not call.errors for call in recorder.calls)


def test_a_cancelled_task_ends_its_request(engine: Engine, recorder: Recorder) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async with client.chat_stream(HELLO, **LONG) as stream:
                async for _ in stream:
                    begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(engine, recorder, fn)
    assert recorder.last.outcome.finish_reason == "interrupted"
    assert not recorder.last.outcome.abandoned
    assert not recorder.last.errors


def test_cancel_from_another_task(engine: Engine, recorder: Recorder) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        stream = client.chat_stream(HELLO, **LONG)
        begun = asyncio.Event()

        async def read() -> str:
            text = ""
            async for event in stream:
                text += event.text if event.kind == "text" else ""
                begun.set()
            return text

        task = asyncio.create_task(read())
        await begun.wait()
        await stream.cancel()
        assert await task == stream.answer.text
        assert stream.answer.finish_reason == "interrupted"

    run(engine, recorder, fn)
    assert not recorder.last.errors


@pytest.mark.parametrize("how", ["break", "never read"])
def test_a_stream_that_is_not_read_to_its_end(engine: Engine, recorder: Recorder, how: str) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        async with client.chat_stream(HELLO, **LONG) as stream:
            async for _ in stream:
                break
        if how == "never read":
            client.chat_stream(HELLO, **LONG)

    run(engine, recorder, fn)
    assert all(call.outcome.abandoned and not call.errors for call in recorder.calls)


def test_errors_are_the_same_types(engine: Engine, recorder: Recorder) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        with pytest.raises(ContextFullError) as caught:
            await client.chat([{"role": "user", "content": "llama " * 500}], max_tokens=100)
        assert caught.value.hint == "%llama start --ctx 2048 --restart"
        with pytest.raises(RequestError):
            await client.chat(HELLO, grammar="root ::= (")
        async with AsyncLlamaCppClient(engine.url, "wrong") as stranger:
            with pytest.raises(UnauthorizedError):
                await stranger.tokenize("a")
            with pytest.raises(UnauthorizedError):
                await stranger.chat(HELLO)

    run(engine, recorder, fn)
    assert [len(call.errors) for call in recorder.calls] == [1, 1]


def test_a_conversation_outlives_its_reader(engine: Engine, recorder: Recorder) -> None:
    async def fn(client: AsyncLlamaCppClient) -> None:
        async with client.chat_stream(HELLO, conversation="async-1", **FIXED) as stream:
            async for _ in stream:
                break
        async with client.resume("async-1") as again:
            async for _ in again:
                pass
        assert again.answer.output_tokens == 6
        await again.cancel()
        async with client.chat_stream(HELLO, conversation="async-2", **LONG) as stream:
            async for _ in stream:
                break
            await stream.cancel()
        assert await client.conversations(["async-2"]) == ()

    run(engine, recorder, fn)


def test_proxy_variables_are_ignored(engine: Engine, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def fn(client: AsyncLlamaCppClient) -> None:
        assert await client.health()

    run(engine, recorder, fn)


def test_a_slow_answer_holds_up_nobody_else() -> None:
    async def main() -> None:
        with loopback(lambda _: gate.wait(20) and None) as silent:
            async with AsyncLlamaCppClient(silent.url) as client:
                task = asyncio.create_task(client.tokenize("a"))
                for _ in range(50):
                    await asyncio.sleep(0)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    import threading

    gate = threading.Event()
    asyncio.run(asyncio.wait_for(main(), 20))
    gate.set()


def test_the_synchronous_client_loads_no_httpx() -> None:
    code = (
        "import sys; import llamatelemetry_jupyter.api.client; "
        "print([m for m in ('httpx', 'prometheus_client', 'requests', 'numpy', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
