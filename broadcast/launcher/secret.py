"""The cookie-signing key, created once so that a restart signs nobody out."""

import os
import secrets
from pathlib import Path


def ensure_secret_key(folder: Path) -> Path:
    """Create `folder`/secret_key (0600, 64 hexadecimal characters, 256 bits) unless it exists; return its path.

    Written to a temporary file and renamed: a launcher killed in between leaves no partial key that breaks later
    starts.
    """
    path = folder / "secret_key"
    if path.exists():
        return path
    temporary_path = folder / "secret_key.new"
    temporary_path.unlink(missing_ok=True)
    descriptor = os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    temporary_path.rename(path)
    return path
