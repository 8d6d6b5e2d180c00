"""The recorder as a command: `lifelong-bayes record`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..errors import UserError
from ..robot.spec import load_robot
from .base import run
from .recorder import Recorder


def record(
    robot: str, out: Path, namespace: str, domain_id: int | None, file_megabytes: int
) -> int:
    """Record until it is interrupted; returns the exit code.

    Raises:
        UserError: unknown robot, or `out` exists.
    """
    load_robot(robot)
    if out.exists():
        raise UserError(f'--out {out}: is there already; give a folder that is not')
    if domain_id is not None:
        os.environ['ROS_DOMAIN_ID'] = str(domain_id)
    values = {
        'robot': robot,
        'out': str(out),
        'file_megabytes': file_megabytes,
        'autostart': True,
    }
    words = ['--ros-args', '-r', f'__ns:={namespace}']
    for name, value in values.items():
        words += ['-p', f'{name}:={json.dumps(value)}']
    print(f'recording {namespace} to {out}; Ctrl-C ends it', flush=True)
    return run(Recorder, words)
