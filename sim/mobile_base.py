"""A differential-drive base that takes twists: its own controller turns them into wheel speeds.

What it is sent is what robots with a `cmd_vel` are sent; how fast and how truly the twist follows
depends on load, tyres and floor.
"""

from __future__ import annotations

from typing import ClassVar

from .diffdrive import DiffDrive


class MobileBase(DiffDrive):
    """State of the vehicle as in `DiffDrive`; action: forward speed in m/s, yaw rate in rad/s."""

    NAME: ClassVar[str] = 'base'
    MODEL: ClassVar[str] = 'mobile_base'
    ACTION: ClassVar[tuple[str, ...]] = ('speed', 'turn')
    PAYLOAD_POINT: ClassVar[tuple[float, float, float]] = (-0.2, 0.0, 0.1)
    PAYLOAD_FAMILY: ClassVar[float] = 40.0
    WIND_FAMILY: ClassVar[float] = 25.0
    BIAS_FAMILY: ClassVar[tuple[float, ...]] = (0.15, 0.6)
