"""What is recorded of prompts and answers, what is masked, what may leave."""

from __future__ import annotations

import socket
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider

from llamatelemetry_jupyter import secrets
from llamatelemetry_jupyter.telemetry import content, masking, privacy, semconv
from llamatelemetry_jupyter.telemetry.processor import RowProcessor
from llamatelemetry_jupyter.telemetry.store import SpanStore
from llamatelemetry_jupyter.values import SpanRow

pytestmark = pytest.mark.floor


@pytest.fixture(autouse=True)
def _as_in_the_beginning():
    yield
    privacy.capture(None)
    privacy._redactors = ()


@pytest.fixture
def store():
    made = SpanStore(None)
    yield made
    made.close()


@pytest.fixture
def tracer(store):
    """A tracer of another library, on a provider of its own."""
    provider = TracerProvider()
    RowProcessor.of(provider).store = store
    return provider.get_tracer("openinference.instrumentation.openai")


SECRETS = {
    "OpenAI": "sk-proj-" + "aB3" * 12,
    "Anthropic": "sk-ant-api03-" + "x9_" * 20,
    "Hugging Face": "hf_" + "Qw" * 17,
    "Kaggle": "KGAT_" + "0f" * 16,
    "GitHub": "ghp_" + "a1" * 18,
    "GitHub, fine-grained": "github_pat_" + "11A" * 12,
    "AWS id": "AKIA" + "Z7" * 8,
    "Google": "AIza" + "b" * 35,
    "NVIDIA": "nvapi-" + "k" * 30,
    "Slack": "xoxb-" + "123456789-abcdef",
    "PyPI": "pypi-AgEIcHlwaS5vcmc" + "c" * 50,
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "Groq": "gsk_" + "d" * 40,
}
AROUND = ("{}", "my key is {}, keep it", '{{"key": "{}"}}', "export X={}", "a\n{}\nb", "({})", "`{}`", "{}.")


@pytest.mark.parametrize("whose", SECRETS)
def test_keys_of_a_known_form_are_masked_wherever_they_stand(whose):
    secret = SECRETS[whose]
    for around in AROUND:
        masked = masking.mask(around.format(secret))
        assert secret not in masked
        assert secret[-12:] not in masked
        assert "[masked: " in masked
        assert masking.mask(masked) == masked


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc123def456ghi", "abc123def456ghi"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("password=hunter2", "hunter2"),
        ('{"password": "swordfish"}', "swordfish"),
        ('{\\"api_key\\": \\"abcDEF123456\\"}', "abcDEF123456"),
        ("https://me:s3cret@host/path", "s3cret"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
        ('kaggle.json: {"username":"me","key":"0123456789abcdef0123456789abcdef"}', "0123456789abcdef"),
        ("client_secret: Zx81-Zx81-Zx81", "Zx81-Zx81"),
    ],
)
def test_what_stands_after_a_telling_word_is_masked(text, secret):
    masked = masking.mask(text)
    assert secret not in masked
    assert masking.mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=256 and input_tokens: 12345678",
        "token: therefore a word of the text",
        "The key = variable that we sort by",
        "https://host:8080/v1/chat?x=1",
        "a basic introduction to bearer bonds",
        "chat qwen2.5-0.5b-instruct-q4_k_m",
        "sk-learn and risk-free",
        "",
        "x" * 20_000,
    ],
)
def test_ordinary_text_is_the_same_object(text):
    assert masking.mask(text) is text


def test_values_that_are_known_here_are_masked_whatever_they_look_like(monkeypatch):
    key = "plain-words-as-a-key"
    secrets.remember(key)
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correcthorsebattery")
    monkeypatch.setenv("EDITOR_THEME", "solarized-dark")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/user/1000/agent")
    monkeypatch.setenv("AUTH_MODE", "disabled")
    monkeypatch.setattr(masking, "_until_s", 0.0)
    said = masking.mask(f"{key} and correcthorsebattery but solarized-dark, disabled, /run/user/1000/agent")
    assert said == "[masked: key] and [masked: key] but solarized-dark, disabled, /run/user/1000/agent"


def test_another_librarys_content_is_recorded_only_while_the_session_captures(store, tracer):
    told = {
        "input.value": "what I asked",
        "llm.output_messages.0.message.content": "what it said",
        "llm.model_name": "m",
    }
    for on in (None, True, False):
        privacy.capture(on)
        tracer.start_span("ChatOpenAI", attributes=told).end()
    off, on, off_again = (dict(row.attributes) for row in store.rows())
    assert off == off_again == {"llm.model_name": "m"}
    assert on == told


@pytest.mark.parametrize(
    ("said", "captured"), [("SPAN_ONLY", True), ("true", True), ("NO_CONTENT", False), ("", False)]
)
def test_the_environment_decides_until_the_session_does(monkeypatch, said, captured):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", said)
    assert content.captured() is captured
    privacy.capture(not captured)
    assert content.captured() is not captured
    privacy.capture(None)
    assert content.captured() is captured


def test_a_block_captures_on_its_own_thread_alone():
    seen = []
    with privacy.capturing():
        assert content.captured()
        other = threading.Thread(target=lambda: seen.append(content.captured()))
        other.start()
        other.join()
        with privacy.capturing(False):
            assert not content.captured()
    assert seen == [False]
    assert not content.captured()


def test_secrets_in_names_values_and_lists_are_masked_in_rows(store, tracer):
    key = SECRETS["Hugging Face"]
    tracer.start_span(f"fetch {key}", attributes={"a": f"x {key}", "b": [key, "y"], "n": 1}).end()
    (row,) = store.rows()
    assert key not in repr(row)
    assert row.attributes["b"] == ["[masked: Hugging Face token]", "y"]


def test_a_secret_in_a_captured_prompt_is_masked_before_anything_is_cut():
    key = SECRETS["OpenAI"]
    long = "w " * 4070 + key
    said = content.request({"messages": [{"role": "user", "content": long}]})
    assert key[:20] not in said


def test_why_a_span_failed_is_masked_for_every_exporter(store):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from llamatelemetry_jupyter.telemetry.block import Block
    from llamatelemetry_jupyter.telemetry.tracer import Telemetry

    telemetry, theirs, provider = Telemetry(store), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    telemetry.tracer = provider.get_tracer("x")
    with pytest.raises(RuntimeError):
        with Block(lambda: telemetry, "load"):
            raise RuntimeError(f"401 for {SECRETS['Hugging Face']} " + "x" * 5000)
    (span,) = theirs.get_finished_spans()
    assert span.status.description.startswith("401 for [masked: Hugging Face token] x")
    assert len(span.status.description) == 1024


def test_redaction_changes_drops_and_fails_closed(store, tracer):
    end = privacy.redact(lambda name, text: text.replace("Miller", "[name]"))
    privacy.redact(lambda name, text: None if name == "customer" else text)
    tracer.start_span("letter to Miller", attributes={"to": "Miller", "customer": "17", "l": ["Miller"]}).end()
    end()

    def broken(name, text):
        raise RuntimeError(text)

    privacy.redact(broken)
    tracer.start_span("Miller", attributes={"to": "Miller", "n": 1}).end()
    first, second = store.rows()
    assert (first.name, dict(first.attributes)) == ("letter to [name]", {"to": "[name]", "l": ["[name]"]})
    assert (second.name, dict(second.attributes)) == ("[redaction failed]", {"to": "[redaction failed]", "n": 1})


def test_redaction_reaches_what_goes_on_the_span_itself():
    privacy.redact(lambda name, text: text.replace("Miller", "[name]") if name == semconv.INPUT_MESSAGES else text)
    assert "Miller" not in content.request({"prompt": "Dear Miller"})
    assert "Miller" in content.answer("Dear Miller")


def test_a_function_that_a_cell_defines_again_is_there_once():
    for _ in range(3):
        namespace = {}
        exec("def hide(name, text): return text", namespace)
        privacy.redact(namespace["hide"])
    assert len(privacy.redactors()) == 1


def leaving(**attributes):
    return privacy.outgoing(SpanRow("1" * 32, "2" * 16, None, "n", "client", 1, 2, attributes=attributes)).attributes


@pytest.mark.parametrize(
    "name",
    [
        "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt.0.content", "gen_ai.completion.0.content",
        "gen_ai.tool.call.arguments", "llm.input_messages.3.message.content", "input.value", "output.value",
        "traceloop.entity.input", "mlflow.spanInputs", "db.statement", "exception.stacktrace", "jupyter.notebook.path",
        "host.name", "process.command_line", "process.environment_variable.HF_TOKEN", "code.filepath", "user.email",
        "url.full",
    ],
)  # fmt: skip
def test_attributes_that_hold_content_or_name_a_place_do_not_leave(name):
    assert leaving(**{name: "anything", "n": 1}) == {"n": 1}


@pytest.mark.parametrize(
    "name",
    ["gen_ai.prompt.name", "gen_ai.prompt.version", "gen_ai.request.model", "http.route", "llm.model_name", "users"],
)
def test_attributes_that_hold_neither_do(name):
    assert leaving(**{name: "anything"}) == {name: "anything"}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("loaded /home/me/models/a b.gguf", "loaded …/a b.gguf"),
        ("GET /v1/chat/completions", "GET /v1/chat/completions"),
        ("http://127.0.0.1:8080/v1/models", "http://127.0.0.1:8080/v1/models"),
        (r"C:\Users\me\nb.ipynb", "…/nb.ipynb"),
        ("vscode-notebook-cell:/home/me/nb.ipynb#W1sZmlsZQ%3D%3D", "…/nb.ipynb#W1sZmlsZQ%3D%3D"),
        ("file:///kaggle/working/x.py:3", "…/x.py:3"),
        ("~/private/x", "…/x"),
        ("1/2 and and/or", "1/2 and and/or"),
    ],
)
def test_of_a_path_only_the_last_part_leaves(text, left):
    assert leaving(told=text) == {"told": left}


def test_this_machines_name_does_not_leave(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-box-17")
    privacy._host.cache_clear()
    try:
        assert leaving(told="on gpu-box-17.lan", deep=[{"a": "gpu-box-17"}]) == {
            "told": "on [host].lan",
            "deep": [{"a": "[host]"}],
        }
    finally:
        privacy._host.cache_clear()


@pytest.mark.parametrize(
    ("server", "left"),
    [("127.0.0.1:8080", "127.0.0.1:8080"), ("localhost:1", "localhost:1"), ("::1:80", "::1:80"), ("default", "default"),
     ("gpu-box.lan:8000", "[host]:8000"), ("10.0.0.7:80", "[host]:80")],
)  # fmt: skip
def test_of_another_machines_address_only_the_port_leaves(server, left):
    row = SpanRow("1" * 32, "2" * 16, None, "n", "client", 1, 2, server=server)
    assert privacy.outgoing(row).server == left


def test_events_links_and_resources_follow_the_same_rules():
    left = leaving(
        **{
            semconv.EVENTS: [
                {"t_ns": 1, "name": "exception", "attributes": {"exception.message": "x", "exception.type": "E"}}
            ],
            semconv.RESOURCE: {"service.name": "s", "host.name": "h", "process.command_args": ["a"]},
        }
    )
    assert left[semconv.EVENTS] == [{"t_ns": 1, "name": "exception", "attributes": {"exception.type": "E"}}]
    assert left[semconv.RESOURCE] == {"service.name": "s"}
