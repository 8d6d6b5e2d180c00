"""ROS nodes that are heard on this machine only. Without ROS."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..paths import share_dir

FAST_DDS = ('', 'rmw_fastrtps_cpp', 'rmw_fastrtps_dynamic_cpp')  # where none is named, it is this


def this_machine() -> dict[str, str]:
    """Environment variables under which a process talks to others of this machine only."""
    if os.environ.get('RMW_IMPLEMENTATION', '') not in FAST_DDS:
        older = {'ROS_LOCALHOST_ONLY': '1'} if os.environ.get('ROS_DISTRO') == 'humble' else {}
        return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', **older}
    profile = str(share_dir() / 'config' / 'dds' / 'this_machine.xml')
    # ROS's own ranges would bring shared memory back, which the profile leaves out.
    return {
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SYSTEM_DEFAULT',
        **({'ROS_LOCALHOST_ONLY': '0'} if 'ROS_LOCALHOST_ONLY' in os.environ else {}),
        'FASTRTPS_DEFAULT_PROFILES_FILE': profile,  # Humble, Jazzy
        'FASTDDS_DEFAULT_PROFILES_FILE': profile,  # Kilted
    }


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of this process, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
