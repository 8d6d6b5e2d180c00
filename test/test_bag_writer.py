"""A bag survives whatever ends its recorder."""

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_typestore

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.salvage import is_finished, salvage
from lifelong_bayes_ros.nodes.bag_writer import UNFINISHED, BagWriter, Recorded

NEVER = QosTime(2147483647, 4294967295)
QOS = Qos(
    QosHistory.KEEP_LAST,
    10,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    NEVER,
    NEVER,
    QosLiveliness.AUTOMATIC,
    NEVER,
    False,
)
KIND = 'std_msgs/msg/String'
TOPICS = {name: Recorded(f'/lifelong/{name}', KIND, QOS) for name in ('event', 'episode')}
STORE = get_typestore(Stores.ROS2_JAZZY)
BIG = 10**9


def message(number):
    return bytes(STORE.serialize_cdr(STORE.types[KIND](data=json.dumps({'n': number})), KIND))


def fill(writer, numbers):
    for n in numbers:
        writer.write('event' if n % 3 else 'episode', 1000 + n, message(n))


def numbers(path):
    with open_bag(path) as bag:
        return [json.loads(m.data)['n'] for _, m in bag.messages('event', 'episode')]


def test_a_bag_of_many_files_reads_as_one(tmp_path):
    bag = tmp_path / 'bag'
    writer = BagWriter(bag, TOPICS, 2000)
    fill(writer, range(500))
    writer.close()
    files = sorted(bag.glob('*.mcap'))
    assert len(files) > 3 and all(is_finished(f) for f in files)
    assert not (bag / UNFINISHED).exists()
    with AnyReader([bag]) as reader:  # as any other tool reads it
        read = [(c.topic, stamp) for c, stamp, _ in reader.messages()]
        assert reader.message_count == 500
        assert (reader.start_time, reader.end_time) == (1000, 1500)
    assert read == [(f'/lifelong/{"event" if n % 3 else "episode"}', 1000 + n) for n in range(500)]
    assert numbers(bag) == list(range(500))


def test_a_killed_recorder_leaves_what_it_had_flushed(tmp_path):
    bag = tmp_path / 'bag'
    code = f"""
import sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_bag_writer import BagWriter, TOPICS, fill
writer = BagWriter(Path({str(bag)!r}), TOPICS, 4000)
fill(writer, range(300))
writer.flush()
fill(writer, range(300, 310))
print('written', flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == 'written\n'
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = numbers(bag)
    assert found[:300] == list(range(300))
    assert found == list(range(len(found)))


def test_a_bag_is_read_while_it_is_written(tmp_path):
    writer = BagWriter(tmp_path / 'bag', TOPICS, BIG)
    fill(writer, range(20))
    writer.flush()
    assert numbers(tmp_path / 'bag') == list(range(20))
    fill(writer, range(20, 40))
    writer.flush()
    assert numbers(tmp_path / 'bag') == list(range(40))
    writer.close()
    assert numbers(tmp_path / 'bag') == list(range(40))


@pytest.fixture(scope='module')
def unfinished(tmp_path_factory):
    """Bytes of a file of five flushes, and its size after each."""
    bag = tmp_path_factory.mktemp('cut') / 'bag'
    writer = BagWriter(bag, TOPICS, BIG)
    file = bag / UNFINISHED / f'{UNFINISHED}.mcap'
    sizes = [file.stat().st_size]
    for first in range(0, 50, 10):
        fill(writer, range(first, first + 10))
        writer.flush()
        sizes.append(file.stat().st_size)
    return file.read_bytes(), sizes


@settings(max_examples=60)
@given(share=st.floats(0, 1))
def test_a_file_cut_anywhere_holds_all_that_was_flushed_before(
    unfinished, tmp_path_factory, share
):
    data, sizes = unfinished
    cut = sizes[0] + round(share * (len(data) - sizes[0]))
    folder = tmp_path_factory.mktemp('cut')
    (folder / 'bag.mcap').write_bytes(data[:cut])
    flushed = 10 * (sum(size <= cut for size in sizes) - 1)
    salvage(folder / 'bag.mcap', folder / 'whole.mcap')
    assert is_finished(folder / 'whole.mcap')
    if flushed:
        found = numbers(folder / 'bag.mcap')
        assert found == list(range(len(found)))
        assert flushed <= len(found) <= flushed + 10


@pytest.mark.parametrize('data', [b'', b'nonsense', b'\x89MCAP0\r\n', b'\0' * 100])
def test_what_is_no_bag_is_refused(tmp_path, data):
    (tmp_path / 'bag.mcap').write_bytes(data)
    with pytest.raises(UserError, match='not a readable bag'), open_bag(tmp_path / 'bag.mcap'):
        pass
