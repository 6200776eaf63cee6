"""The key that signs sessions: made once, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from medseg.errors import InputError


def secret_key(data_dir: Path) -> str:
    """The content of ``data_dir``/secret_key, made with mode 600 where there is none. InputError when others
    may read it."""
    path = data_dir / "secret_key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise InputError(
                f"{path} has mode {mode:o}, so others can read the key; expected 600. Delete it: a new one "
                "is made, and everybody has to log in again."
            ) from None
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        key = secrets.token_urlsafe(50)
        file.write(key)
    return key
