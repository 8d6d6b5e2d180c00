"""Quality of service, one profile for each kind of topic."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

SENSOR = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Subscriptions of robot state: they match reliable and best-effort publishers.

Deep, so that 500 readings per second outlive a process that cannot run for a while.
"""

STATE_OUT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""State that a simulated robot publishes."""

STREAM = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
"""Streams of which every message counts: transitions, commands, scores, figures of every step.

Deep, so that nothing is lost while a reader cannot run for seconds: it is sent again from here.
"""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""The newest value, for whoever comes late too: beliefs, the running episode, memory."""

EVENT = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
"""Things that happened."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Only the newest command matters."""

TELEMETRY = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Figures for plots and displays."""
