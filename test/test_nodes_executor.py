"""The executor of the nodes: all that rclpy serves is served, also while messages pour in."""

import threading
import time
from itertools import pairwise

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException
from rclpy.task import Task
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from lifelong_bayes_ros.nodes.bringup import claim_domain
from lifelong_bayes_ros.nodes.executor import Executor, Unserved

PATIENCE = 10.0  # s


class Served:
    """Two nodes in a domain of their own: what is tested, and who talks to it from a thread."""

    def __init__(self):
        domain, self.lock = claim_domain()
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('served', context=self.context)
        self.other = rclpy.create_node('other', context=self.context)
        self.executor = Executor(self.context)
        self.executor.add_node(self.node)
        self.messages, self.ticks, self.requests = [], [], []
        self.node.create_subscription(Int32, 'number', lambda m: self.messages.append(m.data), 100)
        self.output = self.other.create_publisher(Int32, 'number', 100)

    def until(self, done):
        deadline = time.monotonic() + PATIENCE
        while not done():
            self.executor.round(0.05)
            assert time.monotonic() < deadline
        return True

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.other.destroy_node()
        self.context.try_shutdown()
        self.lock.close()


@pytest.fixture
def served():
    served = Served()
    served.until(lambda: served.output.get_subscription_count() > 0)
    yield served
    served.close()


def test_messages_come_in_order_and_none_is_lost(served):
    for number in range(60):
        served.output.publish(Int32(data=number))
    served.until(lambda: len(served.messages) == 60)
    assert served.messages == list(range(60))


@pytest.mark.parametrize('flood', [False, True])
def test_timers_services_and_answers_are_served_beside_messages(served, flood):
    def answer(request, response):
        served.requests.append(request)
        response.success = True
        return response

    served.node.create_timer(0.02, lambda: served.ticks.append(time.monotonic()))
    served.node.create_service(Trigger, 'ask', answer)
    client = served.node.create_client(Trigger, 'ask')
    if flood:  # there is a new message in every round

        def more(message):
            served.output.publish(Int32(data=message.data + 1))

        served.node.create_subscription(Int32, 'number', more, 100)
        served.output.publish(Int32(data=0))
    served.until(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    served.until(lambda: future.done() and len(served.ticks) >= 5)
    assert future.result().success
    assert len(served.requests) == 1
    assert not flood or len(served.messages) > 20


def test_a_request_is_seen_without_a_round_of_rclpy(served):
    requests = []

    def answer(request, response):
        requests.append(request)
        return response

    served.node.create_service(Trigger, 'ask', answer)
    client = served.other.create_client(Trigger, 'ask')
    served.until(client.service_is_ready)
    served.executor._rclpy_at = time.monotonic() + 60.0
    client.call_async(Trigger.Request())
    served.until(lambda: requests)
    assert len(requests) == 1


def test_a_timer_is_called_without_a_round_of_rclpy(served):
    served.executor._look_at = served.executor._rclpy_at = time.monotonic() + 60.0
    served.node.create_timer(0.02, lambda: served.ticks.append(time.monotonic()))
    started = time.monotonic()
    served.until(lambda: len(served.ticks) >= 5)
    assert served.ticks[-1] - started > 4 * 0.02 - 0.01
    assert min(after - before for before, after in pairwise(served.ticks)) > 0.0


@pytest.mark.parametrize('end', ['cancel', 'reset', 'destroy'])
def test_a_timer_that_a_message_puts_off_is_not_called_in_the_same_round(served, end):
    timer = served.node.create_timer(0.05, lambda: served.ticks.append(time.monotonic()))

    def put_off(message):
        if end == 'destroy':
            served.node.destroy_timer(timer)
        else:
            getattr(timer, end)()

    served.node.create_subscription(Int32, 'put_off', put_off, 100)
    output = served.other.create_publisher(Int32, 'put_off', 100)
    served.until(lambda: output.get_subscription_count() > 0 and served.ticks)
    del served.ticks[:]
    timer.reset()
    output.publish(Int32(data=0))
    time.sleep(0.1)  # both wait now
    served.executor.round(0.0)
    assert not served.ticks


def test_a_round_of_rclpy_that_finds_no_end_is_left_for_requests(served, monkeypatch):
    done = []

    def work():
        done.append(time.monotonic())
        assert len(done) < 200
        time.sleep(0.005)

    monkeypatch.setattr(
        served.executor,
        'wait_for_ready_callbacks',
        lambda timeout_sec: (Task(work), None, None),
    )
    served.executor._look_at = time.monotonic() + 60.0
    served.executor._serve_others()
    assert done and served.executor._look_at <= time.monotonic()


def test_it_comes_back_in_time_where_nothing_happens(served):
    served.executor.round(0.0)
    started = time.monotonic()
    served.executor.round(0.2)
    assert time.monotonic() - started < 5.0
    started = time.monotonic()
    served.executor.round(0.0)
    assert time.monotonic() - started < 5.0


def test_a_node_may_have_nothing_to_wait_for(served):
    served.executor.remove_node(served.node)
    served.executor.add_node(served.other)
    for _ in range(3):
        served.executor.round(0.01)


def test_what_is_added_or_taken_away_while_it_runs_is_minded(served):
    late = []
    subscription = served.node.create_subscription(
        Int32, 'number', lambda m: late.append(m.data), 100
    )
    unserved = []
    group = Unserved()
    served.node.create_subscription(Int32, 'number', unserved.append, 100, callback_group=group)
    served.until(lambda: served.output.get_subscription_count() == 3)
    served.output.publish(Int32(data=1))
    served.until(lambda: late == [1] and served.messages == [1])
    served.node.destroy_subscription(subscription)
    served.output.publish(Int32(data=2))
    served.until(lambda: served.messages == [1, 2])
    assert (late, unserved) == ([1], [])


def test_a_callback_may_destroy_what_is_next(served):
    heard = []

    def first(message):
        heard.append(message.data)
        served.node.destroy_subscription(second)

    served.node.create_subscription(Int32, 'other', first, 10)
    second = served.node.create_subscription(Int32, 'other', heard.append, 10)
    output = served.other.create_publisher(Int32, 'other', 10)
    served.until(lambda: output.get_subscription_count() == 2)
    served.executor._look_at = time.monotonic() + 60.0  # in a round of its own
    output.publish(Int32(data=3))
    time.sleep(0.2)  # until both have it
    served.until(lambda: heard)
    served.executor.round(0.01)
    assert heard == [3]


def test_a_fault_in_a_callback_is_not_swallowed(served):
    served.node.create_timer(0.01, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        served.until(lambda: False)


def test_it_ends_with_its_context(served):
    timer = threading.Timer(0.1, served.context.try_shutdown)
    timer.start()
    with pytest.raises(ExternalShutdownException):
        served.until(lambda: False)
    timer.join()
