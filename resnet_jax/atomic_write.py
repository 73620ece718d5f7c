"""Files that are whole or not there: whoever dies while writing one leaves what stood there before."""

import json
import os
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes a file so that a kill or a loss of power leaves the old one or the new one, never a part.

    Args:
      path: the file; one of the same name with `.partial` behind it is written first.
      content: text, stored as UTF-8, or bytes.

    Raises:
      OSError: if it cannot be written, as on a full disk; the old file is still there.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        # Without it the new name can outlive a loss of power, and what is in the file not.
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: if it cannot be read, or holds something else.
      FileNotFoundError: if there is none.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return value
