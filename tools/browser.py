"""Prints the path of a Chromium that the tests can drive; installs Debian's when there is none and we may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_INSTALL = "apt-get install -y --no-install-recommends chromium fonts-liberation fonts-dejavu-core"


def find() -> str | None:
    """``$CHROME`` or a Chromium on PATH."""
    if chosen := os.environ.get("CHROME"):
        if not (path := shutil.which(chosen)):
            sys.exit(f"CHROME={chosen} is not an executable")
        return path
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def ensure() -> str:
    """The browser's path; exits with the one line to type when it cannot be installed."""
    if path := find():
        return path
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"no Chromium found (CHROME=path names one); try: sudo apt-get update && sudo {_INSTALL}")
    print("== installing Debian's chromium and fonts", file=sys.stderr, flush=True)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, **quiet)
    subprocess.run([*_INSTALL.split(), "-qq"], check=True, env=environment, **quiet)
    if path := find():
        return path
    sys.exit("apt-get installed chromium, but none is on PATH; CHROME=path names one")


if __name__ == "__main__":
    print(ensure())
