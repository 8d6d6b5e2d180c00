"""Cores that a process keeps to: told as `taskset` takes them, refused where there are none."""

import os
import subprocess
import sys

import pytest

from lifelong_bayes_ros.cores import cores, other_cores
from lifelong_bayes_ros.errors import UserError

if not hasattr(os, 'sched_setaffinity'):
    pytest.skip('this system does not tell cores apart', allow_module_level=True)


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ('text', 'wanted', 'rest'),
    [
        ('0', {0}, '1,2,3,4,5,6,7'),
        ('2-4', {2, 3, 4}, '0,1,5,6,7'),
        ('0,2-3,7', {0, 2, 3, 7}, '1,4,5,6'),
    ],
)
def test_cores_are_told_as_for_taskset(eight, text, wanted, rest):
    assert cores(text) == wanted
    assert other_cores(text) == rest
    assert cores(rest) == set(range(8)) - wanted


@pytest.mark.parametrize(
    ('text', 'mend'),
    [
        ('a', 'write e.g. 0'),
        ('', 'write e.g. 0'),
        ('1,', 'write e.g. 0'),
        ('-1', 'write e.g. 0'),
        ('3-2', 'the lower number first'),
        ('7-8', 'there is no core 8 here, only 0, 1'),
    ],
)
def test_what_are_no_cores_is_refused(eight, text, mend):
    with pytest.raises(UserError, match=mend):
        cores(text)


def test_one_core_at_least_is_left_to_others(eight):
    with pytest.raises(UserError, match='leave no core'):
        other_cores('0-7')


KEEP = """
import os, threading
from lifelong_bayes_ros.cores import keep_to
go, seen = threading.Event(), []
def look():
    go.wait()
    seen.append(os.sched_getaffinity(0))
before = threading.Thread(target=look)
before.start()
core = min(os.sched_getaffinity(0))
keep_to('')
keep_to(str(core))
after = threading.Thread(target=look)
after.start()
go.set()
before.join(), after.join()
assert seen == [{core}, {core}] and os.sched_getaffinity(0) == {core}, seen
"""


def test_all_threads_keep_to_them_those_before_and_those_to_come():
    subprocess.run([sys.executable, '-c', KEEP], check=True, timeout=60)
