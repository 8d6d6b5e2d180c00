"""Spins a node with little Python per message."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rclpy._rclpy_pybind11 import InvalidHandle, WaitSet
from rclpy.callback_groups import CallbackGroup
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import (
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Timer

SELDOM = 0.05  # s for which requests, which hardly ever come, may wait
RARELY = 0.5  # s between two rounds of rclpy with all that it serves, whatever else comes


class Executor(SingleThreadedExecutor):
    """Takes messages and calls timers by itself, and leaves all else to rclpy's own rounds.

    For every message rclpy builds anew, in Python, all that it waits for, and a task. Here a round
    waits for messages, timers and answers alone, and calls back the first two directly. A round of
    rclpy follows when one of the others is there. A round waits for requests as well if none did
    for `SELDOM` seconds: a node has a dozen services that are hardly ever called, while messages
    come a hundred times per second. Events, as of incompatible QoS, are served every `RARELY`
    seconds.

    Callbacks of subscriptions take the message alone, those of timers nothing, and none is a
    coroutine; what is destroyed is destroyed in the thread that spins.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._look_at = 0.0  # when to wait for requests as well
        self._rclpy_at = 0.0  # when a round of rclpy is due, whatever comes
        self._asked = False  # whether this round of rclpy is for requests as well
        # By whether requests are waited for: sizes, and what was made for them.
        self._kept: dict[bool, tuple[tuple[int, ...], WaitSet]] = {}

    def can_execute(self, entity: Any) -> bool:
        """Whether to wait for an entity in this round of rclpy."""
        if isinstance(entity, Service) and not self._asked:
            return False
        return super().can_execute(entity)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """As every executor does; what is waited for goes before its context."""
        self._kept.clear()
        return super().shutdown(timeout_sec)

    def round(self, seconds: float) -> None:
        """Wait for something to do, at most so long, and do it.

        Raises:
            ExternalShutdownException: the context was shut down.
        """
        self._check()
        nodes, now = self.get_nodes(), time.monotonic()
        looks = now >= self._look_at
        subscriptions = [
            subscription
            for node in nodes
            for subscription in node.subscriptions
            if subscription.callback_group.can_execute(subscription)
        ]
        timers = [timer for node in nodes for timer in node.timers]
        clients = [client for node in nodes for client in node.clients]
        services = [service for node in nodes for service in node.services] if looks else []
        until = self._rclpy_at if looks else self._look_at
        left = min(seconds, max(until - now, 0.0))
        waiting = self._wait(left, subscriptions, timers, clients, services)
        if waiting is None:
            return
        self._check()
        pointers = set(waiting.get_ready_entities('subscription'))
        rung = set(waiting.get_ready_entities('timer'))
        asked = bool(waiting.get_ready_entities('service'))
        answered = bool(waiting.get_ready_entities('client'))
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
        for timer in timers:
            if timer.handle.pointer in rung and self._is_called(timer):
                timer.callback()
        now = time.monotonic()
        if looks:
            self._look_at = now + SELDOM
        if now >= self._rclpy_at:
            self._rclpy_at, asked = now + RARELY, True
        self._asked = asked
        if asked or answered:
            try:
                self._serve_others()
            finally:
                self._asked = False

    @staticmethod
    def _is_called(timer: Timer) -> bool:
        """Whether a timer that woke us is due, and marked as called."""
        try:
            with timer.handle:
                ready = timer.handle.is_timer_ready()  # a callback of this round may have reset it
                if ready:
                    timer.handle.call_timer()
                return ready
        except InvalidHandle:  # or have destroyed it
            return False

    def _check(self) -> None:
        if not self.context.ok():
            raise ExternalShutdownException

    def _wait(
        self,
        seconds: float,
        subscriptions: Sequence[Subscription],
        timers: Sequence[Timer],
        clients: Sequence[Client],
        services: Sequence[Service],
    ) -> WaitSet | None:
        """Wait for one of these to be ready; None where one of them is being destroyed."""
        sizes = len(subscriptions), 0, len(timers), len(clients), len(services), 0
        known, waiting = self._kept.get(bool(services), ((), None))
        if known != sizes:
            waiting = WaitSet(*sizes, self.context.handle)
            self._kept[bool(services)] = sizes, waiting
        waiting.clear_entities()
        with ExitStack() as held:
            try:
                # Kilted's context destroys its nodes, maybe in another thread, while we wait.
                for entity in (*subscriptions, *timers, *clients, *services):
                    held.enter_context(entity.handle)
            except InvalidHandle:
                return None
            for add, entities in (
                (waiting.add_subscription, subscriptions),
                (waiting.add_timer, timers),
                (waiting.add_client, clients),
                (waiting.add_service, services),
            ):
                for entity in entities:
                    add(entity.handle)
            if any(sizes):
                waiting.wait(round(1e9 * seconds))
            else:  # which a wait set refuses
                time.sleep(seconds)
        return waiting

    def _serve_others(self) -> None:
        """All that rclpy finds ready by now; the rest soon, where there is no end of it."""
        until = time.monotonic() + SELDOM
        while time.monotonic() < until:
            try:
                handler, _, _ = self.wait_for_ready_callbacks(timeout_sec=0.0)
            except (TimeoutException, ShutdownException):
                return
            handler()
            if handler.exception() is not None:
                raise handler.exception()
        self._look_at = self._rclpy_at = 0.0  # requests, too, before it goes on


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
