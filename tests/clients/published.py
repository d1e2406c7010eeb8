"""Fetches what Datadog publishes with its Python package beside the code: examples and scenarios; runs none."""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from python_client import require

PACKAGE = "datadog-api-client"
VERSION = "2.62.0"
SDIST = f"datadog_api_client-{VERSION}"
SDIST_SHA256 = "fec6a649dac5dd7224f64662390005e6d6ce688029742278346f46190d0fc902"


def fetch(inside: str) -> Path:
    """A folder of the source archive, downloaded once; raises Failure when the archive is not the known one."""
    installed = importlib.metadata.version(PACKAGE)
    require(installed == VERSION, f"{PACKAGE} {installed} is installed, what is published is that of {VERSION}")
    cache = Path(os.environ.get("ROSTER_CLIENT_CACHE") or Path(tempfile.gettempdir()) / "roster-client-cache")
    archive = cache / f"{SDIST}.tar.gz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            download(Path(folder))
            (Path(folder) / archive.name).replace(archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    require(digest == SDIST_SHA256, f"{archive} has sha256 {digest}, expected {SDIST_SHA256}")
    if not (cache / SDIST / inside).is_dir():
        with tarfile.open(archive) as opened, tempfile.TemporaryDirectory(dir=cache) as folder:
            wanted = [one for one in opened if one.name.startswith(f"{SDIST}/{inside}/")]
            opened.extractall(folder, members=wanted, filter="data")
            _place(Path(folder) / SDIST / inside, cache / SDIST / inside)
    return cache / SDIST / inside


def _place(made: Path, folder: Path) -> None:
    """Moves a folder to its place, whole, unless another process was quicker."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(folder)
    except OSError:
        require(folder.is_dir(), f"{folder} cannot be made")


def download(folder: Path) -> None:
    """Leaves the source archive of the package in the folder."""
    here = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else [shutil.which("pip") or ""]
    require(bool(here[0]), "pip is needed to fetch what is published; set ROSTER_CLIENT_CACHE to a filled cache")
    wanted = ["download", "--no-deps", "--no-binary", ":all:", f"{PACKAGE}=={VERSION}", "--dest", str(folder)]
    done = subprocess.run([*here, *wanted], capture_output=True, text=True, timeout=300, check=False)
    require(done.returncode == 0, f"pip download failed: {done.stderr}")
