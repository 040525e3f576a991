"""Locust from PyPI, in a virtual environment of its own."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from database import BenchError

REQUIREMENTS = Path(__file__).with_name("locust.txt")


def folder_name(requirements):
    """Another for other requirements or another Python, so that none is stale."""
    of = requirements + sys.version.encode()
    return f"locust-{hashlib.sha256(of).hexdigest()[:12]}"


def locust_program(data, say):
    """Locust's path, installed first if it is not there."""
    folder = data / folder_name(REQUIREMENTS.read_bytes())
    program = folder / "bin" / "locust"
    # Written last: what was interrupted is made again.
    complete = folder / "complete"
    if complete.is_file():
        return program
    say(f"installing the Locust of {REQUIREMENTS.name} from PyPI into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    data.mkdir(exist_ok=True)
    install(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input"]
    # Exactly these files, and nothing that would be compiled here.
    pip += ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    install(*pip, "-r", REQUIREMENTS)
    complete.touch()
    return program


def install(*command):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(
            f"Locust cannot be installed:\n{(done.stderr or done.stdout).strip()[-2000:]}\n"
            "It needs Python 3.11, its venv (apt-get install python3-venv) and PyPI. "
            "Or name one with --locust FILE, or leave it out with --only"
        )
