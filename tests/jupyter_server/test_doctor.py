"""What ``%llama doctor`` says of the extension, from the files that a Jupyter server would read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jupyterserver import REPO

from llamatelemetry_jupyter.magics import checks

pytestmark = pytest.mark.floor


def said() -> str:
    (found,) = [one for one in checks.run_all(None) if one.topic == "server extension"]
    assert found.status == "ok"  # it is a plus
    return found.what


def test_it_is_on_by_the_file_that_the_wheel_lays_down_and_off_where_a_person_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(REPO / "jupyter-config"))
    assert said().startswith("on")
    name = "llamatelemetry_jupyter.jupyter_server"
    (tmp_path / "jupyter_server_config.json").write_text(
        json.dumps({"ServerApp": {"jpserver_extensions": {name: False}}})
    )
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", f"{tmp_path}:{REPO / 'jupyter-config'}")
    assert said() == f"off (on: jupyter server extension enable {name})"


def test_without_jupyters_server_it_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyter_server.extension.config", None)
    assert "no jupyter_server" in said()


def test_the_file_names_the_module_that_is_there():
    file = REPO / "jupyter-config" / "jupyter_server_config.d" / "llamatelemetry_jupyter.json"
    ((name, on),) = json.loads(file.read_text())["ServerApp"]["jpserver_extensions"].items()
    assert on is True
    module = __import__(name, fromlist=["_jupyter_server_extension_points"])
    assert module._jupyter_server_extension_points() == [{"module": name}]
    assert Path(module.__file__).parent.name == "jupyter_server"
