"""The learner on another machine: two networks of the kernel, joined by a cable of its own."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from lifelong_bayes_ros.experiments.agents import LearningAgent
from lifelong_bayes_ros.experiments.bag import open_bag
from lifelong_bayes_ros.experiments.life import run_life
from lifelong_bayes_ros.experiments.priors import prior_for
from lifelong_bayes_ros.experiments.schedule import load_life
from lifelong_bayes_ros.learning.codec import encode_prior
from lifelong_bayes_ros.learning.store import load_state
from lifelong_bayes_ros.nodes.this_machine import this_machine
from lifelong_bayes_ros.robot.spec import load_robot
from plants import QUAD
from test_nodes_graph import LIFE, PATIENCE, TINY

# A network and shared memory of its own, also for who is not root; what it leaves ends with it.
APART = ['unshare', '--map-root-user', '--net', '--mount', '--ipc', '--uts']
APART += ['--pid', '--fork', '--mount-proc', '--kill-child', 'sh', '-c']
HERE = """
set -e
mount -t tmpfs none /dev/shm
hostname robot
ip link set lo up
unshare --net --mount --ipc --uts sh -c "$THERE" &
there=$!
while [ "$(readlink /proc/$there/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add here type veth peer name there netns $there
ip addr add 10.77.0.1/24 dev here
ip link set here up
ip route add 224.0.0.0/4 dev here
$UP --nodes=-learner --robot quad --sim --life "$LIFE_FILE" --realtime false --shutdown-at-end \
    --out "$FOLDER/bag" --logs "$FOLDER/here"
kill -TERM $there
wait $there
"""
THERE = """
mount -t tmpfs none /dev/shm
hostname computer
ip link set lo up
until ip addr add 10.77.0.2/24 dev there 2>/dev/null; do sleep 0.1; done
ip link set there up
ip route add 224.0.0.0/4 dev there
exec $UP --nodes learner --robot quad --prior "$PRIOR" --state-dir "$FOLDER/state" \
    --logs "$FOLDER/there"
"""


def can_be_apart() -> bool:
    """Whether the kernel lets us have networks of our own."""
    if not (shutil.which('unshare') and shutil.which('ip')):
        return False
    trial = 'mount -t tmpfs none /dev/shm && ip link add here type veth peer name there'
    return subprocess.run([*APART, trial], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_be_apart(), reason='no networks of its own: unshare, ip, veth')
def test_a_learner_on_another_machine_learns_what_it_learns_on_this_one(tmp_path, monkeypatch):
    monkeypatch.setenv('LIFELONG_BAYES_CACHE', str(tmp_path / 'cache'))
    prior = prior_for(load_robot('quad'), config=TINY)
    (tmp_path / 'tiny.safetensors').write_bytes(encode_prior(prior))
    (tmp_path / 'life.yaml').write_text(LIFE)
    environment = {k: v for k, v in os.environ.items() if k not in this_machine()} | {
        'FOLDER': str(tmp_path),
        'LIFE_FILE': str(tmp_path / 'life.yaml'),
        'PRIOR': str(tmp_path / 'tiny.safetensors'),
        'THERE': THERE,
        'UP': f'{sys.executable} -m lifelong_bayes_ros up',
    }
    done = subprocess.run(
        [*APART, HERE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    life = load_life(tmp_path / 'life.yaml')
    agent = LearningAgent(prior, seed=0)
    trace = run_life(QUAD, life, agent, seed=0)
    assert load_state(tmp_path / 'state').digest() == agent.learner.digest()
    with open_bag(tmp_path / 'bag') as recorded:
        truth = [json.loads(m.data) for _, m in recorded.messages('sim_robot/regime')]
    assert [t['score'] for t in truth] == trace.score
