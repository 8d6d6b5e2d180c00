"""Spins a node."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.service import Service

SELDOM = 0.05  # s between two looks at a service


class Executor(SingleThreadedExecutor):
    """Looks at services now and then only.

    Every entity costs each round some time, and a node has a dozen services, of lifecycle and
    parameters, that hardly anybody calls while messages come in a hundred times per second.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._look_at: WeakKeyDictionary[Service, float] = WeakKeyDictionary()

    def can_execute(self, entity: Any) -> bool:
        """Whether to wait for an entity in this round."""
        if isinstance(entity, Service):
            now = time.monotonic()
            if now < self._look_at.get(entity, 0.0):
                return False
            self._look_at[entity] = now + SELDOM
        return super().can_execute(entity)

    def round(self, seconds: float) -> None:
        """Wait for something to do, at most so long, and do it.

        Raises:
            ExternalShutdownException: the context was shut down.
        """
        if not self.context.ok():
            raise ExternalShutdownException
        self.spin_once(timeout_sec=seconds)


class Unserved(CallbackGroup):
    """For subscriptions that the executor passes by: see `BaseNode.glance`."""

    def can_execute(self, entity: Any) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""
