"""Answers as typed values: a type or a JSON schema in, a checked object out.

The server's grammar already forces the form; what a grammar cannot say (a validator, a date that exists) is checked
here, and what does not fit goes back to the model with the reason, a bounded number of times.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..api.client import DEFAULT_MAX_TOKENS
from ..errors import CommandError, LlamaError
from ..values import Answer

if TYPE_CHECKING:
    from typing import Unpack

    from ..api.client import Message
    from .engine import InferenceEngine
    from .options import ChatOptions

_MAX_REASON = 800


class StructuredError(LlamaError):
    """The model gave nothing that fits; ``answers`` are all that it gave, ``text`` is the newest one's."""

    def __init__(self, message: str, *, hint: str, answers: Sequence[Answer]) -> None:
        super().__init__(message, hint=hint)
        self.answers = tuple(answers)

    @property
    def text(self) -> str:
        """The newest answer, which may be incomplete JSON."""
        return self.answers[-1].text


def ask(
    engine: InferenceEngine,
    prompt: str | Sequence[Message],
    form: Any,
    *,
    retries: int = 2,
    **options: Unpack[ChatOptions],
) -> Any:
    """An object of type ``form``: a pydantic model, a dataclass, ``list[X]``, …; the JSON value when it is a schema.

    Types need pydantic (``pip install llamatelemetry-jupyter[structured]``). An answer that does not fit goes back with
    the reason at most ``retries`` times; one that is cut off at ``max_tokens`` is asked again once with four times the
    room. Then StructuredError holds the answers. ``engine.last`` is the newest answer.
    """
    if type(retries) is not int or retries < 0:
        raise CommandError(f"retries must be at least 0, not {retries!r}", hint="retries=2")
    schema, read = _form(form)
    messages = engine.messages(prompt, options.pop("system", None))
    answers: list[Answer] = []
    grown = False
    while True:
        options["json_schema"] = schema
        answer = engine.chat(messages, **options)
        answers.append(answer)
        if answer.finish_reason == "length":
            if grown:
                limit = options.get("max_tokens")
                raise StructuredError(
                    f"the JSON is incomplete after {limit} tokens; what came is in the error's text",
                    hint=f"max_tokens={2 * (limit or DEFAULT_MAX_TOKENS)}, or a form with limits on lengths",
                    answers=answers,
                )
            grown = True
            options["max_tokens"] = _more_room(engine, answer, options.get("max_tokens") or DEFAULT_MAX_TOKENS)
            continue
        try:
            return read(answer.text)
        except ValueError as error:
            reason = str(error)[:_MAX_REASON]
            if retries == 0:
                raise StructuredError(
                    f"the answer does not fit after {len(answers)} tries: {reason.splitlines()[0]}",
                    hint="say in the prompt what is wanted, or allow more in the form; all tries: error.answers",
                    answers=answers,
                ) from error
            retries -= 1
            # A seed would repeat the answer; the conversation has changed, so it repeats nothing that was wrong.
            said = f"That does not fit:\n{reason}\nAnswer again, with JSON that fits."
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": said}]


def _more_room(engine: InferenceEngine, answer: Answer, limit: int) -> int:
    """Four times ``limit``, but not beyond the context."""
    context = engine.context()
    room = context - (answer.input_tokens or 0) if context is not None else 4 * limit
    return max(limit, min(4 * limit, room))


def _form(form: Any) -> tuple[Mapping[str, Any], Callable[[str], Any]]:
    """The JSON schema of ``form``, and the function that reads an answer or raises ValueError."""
    if isinstance(form, Mapping):
        return form, _reader(form)
    if isinstance(form, str) or form is None:
        raise CommandError(f"a type or a JSON schema is needed, not {form!r}", hint='{"type": "object", …}')
    try:
        pydantic = importlib.import_module("pydantic")
    except ImportError as error:
        raise CommandError(
            "types need pydantic; a JSON schema (a dict) works without", hint="%pip install pydantic"
        ) from error
    try:
        adapter = pydantic.TypeAdapter(form)
        schema: Mapping[str, Any] = adapter.json_schema()
    except (pydantic.errors.PydanticUserError, TypeError, NameError) as error:
        raise CommandError(
            f"{getattr(form, '__name__', form)} has no JSON schema: {str(error).splitlines()[0]}",
            hint="a pydantic model, a dataclass, or a JSON schema",
        ) from error

    def read(text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except pydantic.ValidationError as error:
            told = [f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors()]
            raise ValueError("\n".join(told)) from error

    return schema, read


def _reader(schema: Mapping[str, Any]) -> Callable[[str], Any]:
    """Parses, and checks where jsonschema is there (Jupyter brings it); elsewhere the server's grammar has to do."""
    if find_spec("jsonschema") is None:
        return json.loads
    jsonschema = importlib.import_module("jsonschema")

    def read(text: str) -> Any:
        value = json.loads(text)
        try:
            jsonschema.validate(value, schema)
        except jsonschema.ValidationError as error:
            raise ValueError(f"{error.json_path}: {error.message}") from error
        except jsonschema.SchemaError as error:
            raise CommandError(f"the JSON schema is not one: {error.message}", hint='{"type": "object", …}') from error
        return value

    return read
