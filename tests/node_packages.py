"""Installs folders of scripts for Node.js with the packages of their lock files, outside of the tree, once a lock."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("ROSTER_CLIENT_CACHE") or Path(tempfile.gettempdir()) / "roster-client-cache")
INSTALL_TIMEOUT_S = 600


def install(source: Path) -> Path:
    """Copies the folder beside its packages in the cache; installs them when the lock file has changed."""
    folder = CACHE / source.name
    lock = (source / "package-lock.json").read_bytes()
    stamp = folder / "installed-lock.json"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    if not stamp.is_file() or stamp.read_bytes() != lock:
        subprocess.run(["npm", "ci"], cwd=folder, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
        stamp.write_bytes(lock)
    return folder
