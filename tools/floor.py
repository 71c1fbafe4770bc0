"""Makes the environment with Kaggle's versions: ``python tools/floor.py .venv-floor``.

Kaggle runs Python 3.12; its pins install on 3.10 to 3.13 too (constraints/kaggle.txt), so the first of those that is on
this machine is taken. A pyenv shim without a version behind it and a Python without ``venv`` are passed over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_VERSIONS = ("3.12", "3.11", "3.10", "3.13")
# Beside the package itself: what Kaggle has and the floor tests use, and the test runner.
_PACKAGES = (
    "ipykernel", "nbclient", "nbconvert", "pytest>=8.0", "pytest-timeout>=2.3", "hypothesis>=6.100",
)  # fmt: skip


def candidates(version: str) -> Iterator[Path]:
    """Every place where Python ``version`` may be, PATH first."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(folder or ".") / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
    uv = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "uv" / "python"
    yield from sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"), reverse=True)
    yield Path(sys.executable)


def usable(python: Path, version: str) -> bool:
    """Whether it starts, is that version, and can make an environment."""
    check = f"import ensurepip, sqlite3, ssl, venv, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    return (
        os.access(python, os.X_OK)
        and subprocess.run([python, "-c", check], capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode
        == 0
    )


def find() -> Path:
    """The Python to build on; exits with the one line to type when there is none."""
    for version in _VERSIONS:
        for python in candidates(version):
            if usable(python, version):
                return python
    sys.exit(
        "Kaggle's versions need a Python from 3.10 to 3.13 with venv, and none was found; "
        "try: sudo apt-get install -y python3-venv   (or: pyenv install 3.12)"
    )


def main() -> None:
    """Make the folder anew."""
    target = ROOT / sys.argv[1]
    python = find()
    print(f"== {target.name}: Kaggle's versions on {python}", flush=True)
    if target.exists():
        shutil.rmtree(target)
    subprocess.run([python, "-m", "venv", target], check=True)
    pip = [target / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-qq"]
    subprocess.run([*pip, "-U", "pip"], check=True)
    constraints = ROOT / "constraints" / "kaggle.txt"
    subprocess.run(
        [*pip, "--prefer-binary", "-c", constraints, "-e", f"{ROOT}[local,graph,server]", *_PACKAGES],
        check=True,
        cwd=ROOT,
    )


if __name__ == "__main__":
    main()
