"""Spins a node with little Python per message."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from rclpy._rclpy_pybind11 import InvalidHandle, WaitSet
from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.executors import (
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.service import Service

SELDOM = 0.05  # s between two rounds of rclpy where nothing asks for one
LOOK = 0.9 * SELDOM  # and least time between two looks at a service


class Executor(SingleThreadedExecutor):
    """Takes messages by itself, and leaves all else to rclpy's own rounds.

    For every message rclpy builds anew, in Python, all that it waits for, and a task. Here a round
    waits for messages, timers and answers alone, and hands messages to their callbacks directly. A
    round of rclpy follows when one of the others is there, and every `SELDOM` seconds for requests
    and events, which hardly ever come while messages do a hundred times per second.

    Callbacks of subscriptions take the message alone and are no coroutines; what is destroyed is
    destroyed in the thread that spins.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._look_at: WeakKeyDictionary[Service, float] = WeakKeyDictionary()
        self._others_at = 0.0  # when a round of rclpy is due, whatever comes
        self._sizes: tuple[int, ...] = ()
        self._waiting: WaitSet | None = None

    def can_execute(self, entity: Any) -> bool:
        """Whether to wait for an entity in this round of rclpy."""
        if isinstance(entity, Service):
            now = time.monotonic()
            if now < self._look_at.get(entity, 0.0):
                return False
            self._look_at[entity] = now + LOOK
        return super().can_execute(entity)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """As every executor does; what is waited for goes before its context."""
        self._sizes, self._waiting = (), None
        return super().shutdown(timeout_sec)

    def round(self, seconds: float) -> None:
        """Wait for something to do, at most so long, and do it.

        Raises:
            ExternalShutdownException: the context was shut down.
        """
        self._check()
        nodes = self.get_nodes()
        subscriptions = [
            subscription
            for node in nodes
            for subscription in node.subscriptions
            if subscription.callback_group.can_execute(subscription)
        ]
        timers = [timer for node in nodes for timer in node.timers]
        clients = [client for node in nodes for client in node.clients]
        left = max(self._others_at - time.monotonic(), 0.0)
        waiting = self._wait_set(len(subscriptions), len(timers), len(clients))
        with ExitStack() as held:
            try:
                # Kilted's context destroys its nodes, maybe in another thread, while we wait.
                for entity in (*subscriptions, *timers, *clients):
                    held.enter_context(entity.handle)
            except InvalidHandle:
                return
            for subscription in subscriptions:
                waiting.add_subscription(subscription.handle)
            for timer in timers:
                waiting.add_timer(timer.handle)
            for client in clients:
                waiting.add_client(client.handle)
            if subscriptions or timers or clients:
                waiting.wait(round(1e9 * min(seconds, left)))
            else:  # which a wait set refuses
                time.sleep(min(seconds, left))
        self._check()
        pointers = set(waiting.get_ready_entities('subscription'))
        others = waiting.get_ready_entities('timer') or waiting.get_ready_entities('client')
        ready = [s for s in subscriptions if s.handle.pointer in pointers]
        for subscription in ready:
            handle = subscription.handle
            try:
                with handle:
                    taken = handle.take_message(subscription.msg_type, subscription.raw)
            except InvalidHandle:  # a callback of this round has destroyed it
                continue
            if taken is not None:
                subscription.callback(taken[0])
        if others or time.monotonic() >= self._others_at:
            self._others_at = time.monotonic() + SELDOM
            self._serve_others()

    def _check(self) -> None:
        if not self.context.ok():
            raise ExternalShutdownException

    def _wait_set(self, *sizes: int) -> WaitSet:
        """An empty wait set for so many subscriptions, timers and clients."""
        if self._sizes != sizes:
            subscriptions, timers, clients = sizes
            self._waiting = WaitSet(subscriptions, 0, timers, clients, 0, 0, self.context.handle)
            self._sizes = sizes
        self._waiting.clear_entities()
        return self._waiting

    def _serve_others(self) -> None:
        """All that rclpy finds ready by now."""
        while True:
            try:
                handler, _, _ = self.wait_for_ready_callbacks(timeout_sec=0.0)
            except (TimeoutException, ShutdownException):
                return
            handler()
            if handler.exception() is not None:
                raise handler.exception()


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
