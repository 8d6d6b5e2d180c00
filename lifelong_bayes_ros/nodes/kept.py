"""What an operator told a node, for the process that is started in the place of one that died."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rclpy.node import Node

from ..learning.store import write_atomically


class Kept:
    """Values that outlive a process, but neither its orderly end nor whoever started it.

    In a file named after the process that starts the node, which starts it again, and the node.
    """

    def __init__(self, node: Node) -> None:
        parts = (os.getuid(), os.getppid(), node.context.get_domain_id())
        name = '_'.join(map(str, parts)) + node.get_fully_qualified_name().replace('/', '_')
        self.path = Path(tempfile.gettempdir()) / f'lifelong_bayes_{name}.json'

    def read(self) -> dict[str, Any]:
        """What this process, or one that died in its place, kept; empty: nothing."""
        try:
            if self.path.stat().st_uid != os.getuid():
                return {}
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}

    def write(self, values: dict[str, Any]) -> None:
        """Keep these values in the place of those before.

        Raises:
            OSError: they cannot be written.
        """
        write_atomically(self.path, json.dumps(values).encode())

    def forget(self) -> None:
        """An orderly end."""
        self.path.unlink(missing_ok=True)
