"""The ROS 2 nodes: thin, one file each, everything they know lives in the other rooms."""

from .. import threads  # noqa: F401  (before numpy)
