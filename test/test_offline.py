"""A trunk that learns offline: adopted with memory in one transaction, or not at all."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning import store
from lifelong_bayes_ros.learning.candidate import prepare
from lifelong_bayes_ros.learning.codec import fingerprint, pack, unpack
from lifelong_bayes_ros.learning.forgetting import forget
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.offline import job_of_now
from lifelong_bayes_ros.learning.store import load_state, save_state
from lifelong_bayes_ros.memory.reservoir import Sample
from lifelong_bayes_ros.memory.tape import Tape
from plants import HOME, LOSS, QUAD, stream
from test_background import DRAG, FAST, clean_error, trunk_events
from test_keeper import careless, contents, fails, printed, run, start

# A job begins at 600 and is due at 770.
CONFIG = replace(FAST, trunk_window=1000, reservoir=1000)
DUE = 770
LIFE = [
    replace(t, episode=n // 100, stamp_ns=(n + 1) * QUAD.period_ns)
    for n, t in enumerate(stream(HOME, 100, 0) + stream(DRAG, 800, 1, 100))
]


def lived(prior, transitions=LIFE[:DUE], **config):
    learner = Learner(prior, replace(CONFIG, **config), seed=3)
    if learner.background is not None:
        learner.background.late = {DUE}
    for transition in transitions:
        learner.observe(transition)
    return learner


@pytest.fixture(scope='module')
def saved(tiny_prior, tmp_path_factory):
    """A state whose job was late, so that nothing was adopted."""
    folder = tmp_path_factory.mktemp('lived') / 'state'
    learner = lived(tiny_prior)
    assert [e.detail['late'] for e in trunk_events(learner)] == [True]
    save_state(learner, folder)
    return folder


@pytest.fixture
def state(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / 'state')


# ---------------------------------------------------------------------- what it works on
def test_the_evidence_to_beat_is_what_the_live_head_gave_online(tiny_prior, saved):
    """On board and from a state: the same of each, however often the head was reborn."""
    learner = Learner(tiny_prior, CONFIG, seed=3)
    for transition in LIFE[: DUE - 1]:
        learner.observe(transition)
    running = learner.background.running
    learner.observe(LIFE[DUE - 1])
    found = job_of_now(load_state(saved), None, print)
    assert len(found.evidence) == learner.background.due == 170
    assert found.evidence == running.evidence
    assert [s.key for s in found.held_out] == [s.key for s in running.held_out]
    assert [s.key for s in found.job.recent] == [s.key for s in running.job.recent]
    mine, onboard = ((r.started, r.job.steps, r.job.seed) for r in (found, running))
    assert mine == onboard


def test_nothing_that_is_held_out_is_learned_from(saved):
    """Nor have stored heads, which are taken as they were before."""
    learner = load_state(saved)
    last = len(learner.tape.samples()) - 1
    learner.age = learner.config.store_age
    learner.consolidate()  # commits the live head, which knows all
    regime = learner.library.regimes[learner.identity]
    assert regime.tape.samples()[last].key == learner.background.window[-1].key
    running = job_of_now(learner, None, print)
    job, unseen = running.job, {s.key for s in running.held_out}
    told = [*job.recent, *(s for held in job.memory.values() for s in held)]
    assert told and unseen.isdisjoint(s.key for s in told)
    for other in learner.library.regimes:
        kept = list(other.tape)
        if any(isinstance(o, Sample) and o.key in unseen for o in kept):
            at = next(i for i, o in enumerate(kept) if isinstance(o, Sample) and o.key in unseen)
            head = Tape(other.tape.start, kept[:at], at).run(learner.dynamics, learner.family)
            assert torch.equal(job.heads[other.name].posterior.mean, head.posterior.mean)
            assert not torch.equal(job.heads[other.name].posterior.mean, other.head.posterior.mean)
        else:
            assert job.heads[other.name] is other.head
    assert job.heads[regime.name] is not regime.head


# ---------------------------------------------------------------------- the command
def test_a_trunk_learns_offline_and_predicts_better(state, capsys):
    before = load_state(state)
    known = before.library.names
    before.consolidate()
    run('consolidate', state, '--trunk', '--json')
    report = printed(capsys)
    learner = load_state(state)
    assert report['accepted'] and not report['reason']
    assert report['trunk']['what'] == 'trunk' and report['trunk']['nats_per_step'] > 0
    assert report['regimes'] == learner.library.names == known
    assert fingerprint(learner.prior) != fingerprint(before.prior)
    assert clean_error(learner, DRAG) < clean_error(before, DRAG)
    background = learner.background
    assert (background.next, background.pause) == (learner.learned + CONFIG.trunk_every, 1)
    assert background.running is None and len(background.window) == DUE
    # What was held out has judged one trunk; another one is judged by what comes after.
    after = contents(state)
    said = fails(capsys, 'consolidate', state, '--trunk')
    assert 'predicted 0 transitions since it was adopted' in said and '170 more' in said
    assert contents(state) == after
    for transition in LIFE[DUE:]:  # and it goes on
        learner.observe(transition)
    assert np.isfinite(learner.belief().theta).all()


@pytest.mark.parametrize('steps', [1, 2, 9, 10, 11])
def test_a_trunk_may_take_any_number_of_steps(saved, steps):
    outcome = load_state(saved).teach_trunk(steps)
    assert outcome.candidate or 'nats on held-out' in outcome.detail['reason'], outcome.detail


def test_what_a_trunk_has_learned_from_offline_cannot_be_forgotten(state):
    assert forget(load_state(state), 3).transitions > 0
    run('consolidate', state, '--trunk')
    learner = load_state(state)
    assert learner.taught == set(range(6))  # up to those that were held out
    for episode in range(6):
        with pytest.raises(UserError, match=f'{episode}: the trunk has learned from it'):
            forget(learner, episode)
    with pytest.raises(UserError, match=r'7: regime live.* no longer keeps'):
        forget(learner, 7)  # of one head on both trunks


@pytest.mark.parametrize('what', ['evidence', 'memory'])
def test_what_is_rolled_back_leaves_the_state_bit_for_bit(
    tiny_prior, state, capsys, monkeypatch, what
):
    """Also a trunk that was good, where memory is rolled back after it."""
    if what == 'evidence':
        save_state(lived(tiny_prior, stream(HOME, 700, 0)), state)
    else:
        monkeypatch.setattr('lifelong_bayes_ros.memory.consolidation._same', careless)
        monkeypatch.setattr('lifelong_bayes_ros.memory.consolidation.TOLERANCE', 0.0)
    before, command = contents(state), ['consolidate', state, '--trunk']
    run(*command, '--json', code=1)
    report = printed(capsys)
    assert not report['accepted']
    assert report['regimes'] == load_state(state).library.names
    wanted = 'nats on held-out' if what == 'evidence' else 'error of a regime on its memory grew'
    assert wanted in report['reason']
    run(*command, code=1)
    assert capsys.readouterr().out.startswith(f'rolled back: {report["reason"]}')
    assert contents(state) == before


def test_a_learner_whose_trunk_is_rolled_back_is_as_it_was(saved, monkeypatch):
    learner = load_state(saved)
    monkeypatch.setattr('lifelong_bayes_ros.learning.candidate.DECISIVE', np.inf)
    before = learner.digest(), learner.background.next, learner.background.pause
    assert learner.teach_trunk().candidate is None
    assert (learner.digest(), learner.background.next, learner.background.pause) == before


def test_a_trunk_is_not_adopted_for_what_heads_that_are_fitted_anew_gain(saved):
    learner = load_state(saved)
    running = job_of_now(learner, 1, print)
    evidence, walk = np.array(running.evidence), learner.background._walk(running)
    for refined in (running.job.still(), running.job.learn(learner.device)):
        made = prepare(running.job, refined, running.held_out, evidence, walk)
        assert not made.reason and made.gain > 0.5  # although one step teaches the trunk nothing
    outcome = learner.teach_trunk(1)
    assert outcome.candidate is None and 'nats on held-out' in outcome.detail['reason']
    assert abs(outcome.detail['nats_per_step']) < 0.05
    assert learner.teach_trunk().candidate is not None


def test_too_little_is_refused_with_its_numbers(tiny_prior, tmp_path, capsys):
    few = lived(tiny_prior, LIFE[:300])
    save_state(few, tmp_path / 'few')
    said = fails(capsys, 'consolidate', tmp_path / 'few', '--trunk')
    assert '300 transitions' in said and 'last 170 are held out' in said and 'for 370 more' in said
    small = lived(tiny_prior, LIFE[:50], trunk_window=400)
    with pytest.raises(UserError, match=r'50 transitions .*`trunk_window` keeps at most 400'):
        small.teach_trunk()
    off = lived(tiny_prior, LIFE[:50], background=False)
    save_state(off, tmp_path / 'off')
    assert 'background: false' in fails(capsys, 'consolidate', tmp_path / 'off', '--trunk')


def test_a_state_of_an_earlier_version_lacks_the_evidence_and_says_so(state, capsys):
    path = state / store.STATE
    arrays, meta = unpack('learner', path.read_bytes(), '')
    del arrays['background.window.evidence']
    path.write_bytes(pack('learner', arrays, meta))
    learner = load_state(state)
    said = fails(capsys, 'consolidate', state, '--trunk')
    assert 'predicted 0 transitions' in said and 'of a version that did not keep' in said
    for transition in LIFE[DUE : DUE + 100]:
        learner.observe(transition)
    save_state(learner, state)
    assert 'go on for 70 more' in fails(capsys, 'consolidate', state, '--trunk')


def test_a_robot_that_changed_just_now_gets_no_trunk_of_what_it_was(state, tiny_prior):
    learner = load_state(state)
    for transition in stream([*DRAG, *LOSS], 8, 9, DUE):
        learner.observe(replace(transition, episode=8))
    outcome = learner.teach_trunk()
    assert outcome.candidate is None
    assert 'the robot has changed since' in outcome.detail['reason']


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--trunk', '--steps', '0'], "'0': give a whole number from 1 to"),
        (['--trunk', '--steps', 'many'], "'many': give a whole number from 1 to"),
        (['--trunk', '--device', 'tpu'], "invalid choice: 'tpu'"),
        (['--steps', '5'], '--steps is of the trunk only; give --trunk'),
        (['--device', 'cpu'], '--device is of the trunk only; give --trunk'),
        (['--trunk', '--device', 'cuda'], '--device: cuda is not there'),
    ],
)
def test_a_mistake_is_named_before_anything_starts(saved, capsys, monkeypatch, options, said):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    before = contents(saved)
    try:
        code = cli.main(['consolidate', str(saved), *options])
    except SystemExit as end:  # of argparse
        code = end.code
    assert code == 2
    message = ' '.join(capsys.readouterr().err.split())
    assert said in message
    assert contents(saved) == before


# ---------------------------------------------------------------------- interrupted, killed
def test_an_interrupted_command_leaves_the_old_state(state):
    before = contents(state)
    child = start('consolidate', state, '--trunk', '--steps', 10**6)
    child.stdin.write(b'\n')
    child.stdin.flush()
    time.sleep(1.5)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, b'')
    assert contents(state) == before


def test_a_killed_command_leaves_the_old_state_or_the_new_one(saved, state):
    command = 'consolidate', state, '--trunk', '--steps', 300, '--json'

    def fresh():
        shutil.rmtree(state)
        shutil.copytree(saved, state)
        return start(*command)

    child, began = fresh(), time.monotonic()
    out, _ = child.communicate(b'\n')
    took = time.monotonic() - began
    assert child.returncode == 0 and json.loads(out)['accepted']
    old, new = load_state(saved).digest(), load_state(state).digest()
    assert new != old
    for share in (0.5, 0.97):
        child = fresh()
        child.stdin.write(b'\n')
        child.stdin.flush()
        time.sleep(share * took)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert load_state(state).digest() in (old, new)
