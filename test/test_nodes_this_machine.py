"""Nodes of a private run talk over the loopback interface alone, without shared memory."""

import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from lifelong_bayes_ros.nodes.this_machine import environment, this_machine

NODE = """
import os, rclpy
from std_msgs.msg import Int32
rclpy.init()
node = rclpy.create_node('alone')
publisher = node.create_publisher(Int32, 'number', 1)
heard = []
subscription = node.create_subscription(Int32, 'number', heard.append, 1)
while not heard:
    publisher.publish(Int32(data=1))
    rclpy.spin_once(node, timeout_sec=0.1)
print(sum('/dev/shm/fast' in line for line in open('/proc/self/maps')), end=' ')
own = {os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')
       if os.path.exists(f'/proc/self/fd/{fd}')}
for line in list(open('/proc/net/udp'))[1:]:
    fields = line.split()
    if f'socket:[{fields[9]}]' in own:
        print(fields[1].split(':')[0], end=' ')
"""


def test_a_private_node_uses_the_loopback_interface_alone_and_no_shared_memory():
    if rmw() != 'rmw_fastrtps_cpp':
        pytest.skip('the middleware is another one')
    run = subprocess.run(
        [sys.executable, '-c', NODE],
        env=os.environ | this_machine(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shared, *addresses = run.stdout.split()
    assert int(shared) == 0
    assert '0100007F' in addresses  # 127.0.0.1
    assert set(addresses) <= {'0100007F', '0100FFEF'}  # and discovery's 239.255.0.1


def rmw() -> str:
    import rclpy

    return rclpy.get_rmw_implementation_identifier()


def test_another_middleware_is_asked_for_the_same(monkeypatch):
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_cyclonedds_cpp')
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert this_machine() == {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    assert this_machine()['ROS_LOCALHOST_ONLY'] == '1'


def test_an_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv('KEPT', 'before')
    monkeypatch.delenv('NEW', raising=False)
    with pytest.raises(KeyError), environment({'KEPT': 'inside', 'NEW': 'inside'}):
        raise KeyError(os.environ['KEPT'] + os.environ['NEW'])
    assert os.environ['KEPT'] == 'before' and 'NEW' not in os.environ
