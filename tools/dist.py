"""``make dist``: wheel and sdist into dist/; the wheel is looked into, installed in a clean environment and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
_NEEDED = (
    "llamatelemetry/__init__.py", "llamatelemetry_jupyter/__init__.py", "llamatelemetry_jupyter/py.typed",
    "llamatelemetry_jupyter/widgets/static/dashboard.js", "llamatelemetry_jupyter/widgets/static/dashboard.css",
    "llamatelemetry_jupyter/widgets/static/chat.js", "llamatelemetry_jupyter/widgets/static/chat.css",
    "llamatelemetry_jupyter/widgets/static/LICENSES.txt", "llamatelemetry_jupyter/widgets/static/hostcheck.js",
    "llamatelemetry_jupyter/widgets/static/tokens.js", "llamatelemetry_jupyter/widgets/static/tokens.css",
)  # fmt: skip
_ROOMS = ("llamatelemetry/", "llamatelemetry_jupyter/", "llamatelemetry_jupyter-")
_IN_SDIST = ("js/src/dashboard.js", "tests/conftest.py", "notebooks/01-quickstart.ipynb", "Makefile", "README.md")
_EXTENSION = "llamatelemetry_jupyter.jupyter_server"
_USE = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import llamatelemetry_jupyter as lt, sys
assert sys.prefix in lt.__file__, lt.__file__
shell.run_line_magic("load_ext", "llamatelemetry")
assert "llama" in shell.magics_manager.magics["line"]
shell.run_line_magic("llama", "--help")
from llamatelemetry_jupyter.widgets.dashboard import Dashboard
assert len(Dashboard()._esm) > 10_000
print("version", lt.__version__)
"""


def _check_extension(folder: Path) -> None:
    """Whether Jupyter's server finds the extension by what the wheel alone has laid down, and switched on."""
    listed = subprocess.run(
        [folder / "bin" / "jupyter-server", "extension", "list"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "JUPYTER_CONFIG_DIR": str(folder / "no-config")},
    )  # fmt: skip
    told = listed.stdout + listed.stderr
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in told.splitlines()]
    at = next((n for n, line in enumerate(lines) if line.startswith(f"{_EXTENSION} enabled")), None)
    if at is None or not any(line.startswith(f"{_EXTENSION}") and line.endswith("OK") for line in lines[at:]):
        sys.exit(f"jupyter server extension list does not show {_EXTENSION} as enabled and valid:\n{told}")


def main() -> None:
    """Exits with the reason when the wheel is not what it has to be."""
    shutil.rmtree(DIST, ignore_errors=True)
    build = [sys.executable, "-m", "build", "--outdir", DIST, ROOT]
    subprocess.run(build, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    if missing := [name for name in _NEEDED if name not in names]:
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    if foreign := [name for name in names if not name.startswith(_ROOMS)]:
        sys.exit(f"{wheel.name} holds what does not belong there: {', '.join(foreign)}")
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[-1] for name in archive.getnames()}
    if missing := [name for name in _IN_SDIST if name not in packed]:
        sys.exit(f"{sdist.name} lacks {', '.join(missing)}")
    if [name for name in packed if "node_modules" in name]:
        sys.exit(f"{sdist.name} holds node_modules")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        subprocess.run([*pip, "install", "-qq", "--prefer-binary", wheel], check=True, stdin=subprocess.DEVNULL)
        subprocess.run([*pip, "check"], check=True, stdin=subprocess.DEVNULL)
        # A folder elsewhere: the checkout must not be importable.
        subprocess.run([python, "-c", _USE], check=True, stdin=subprocess.DEVNULL, cwd=folder)
        subprocess.run(
            [*pip, "install", "-qq", "--prefer-binary", f"{wheel}[server]"], check=True, stdin=subprocess.DEVNULL
        )
        _check_extension(Path(folder))
    for path in (wheel, sdist):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
