"""Probing: off unless wanted, only when it is not clear which regime it is, never past safety."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lifelong_bayes_ros_sim as sim
from lifelong_bayes_ros.control.controller import Controller
from lifelong_bayes_ros.control.planner import Plan
from lifelong_bayes_ros.control.probing import HOLD, Probe
from lifelong_bayes_ros.control.safety import Safety
from lifelong_bayes_ros.dynamics.belief import Belief
from lifelong_bayes_ros.dynamics.model import DELAYS
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.learner import Learner
from lifelong_bayes_ros.learning.pretrain import pretrain
from lifelong_bayes_ros.learning.settings import LearnerConfig
from lifelong_bayes_ros.robot.probing import Probing
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot, robot_names
from lifelong_bayes_ros.robot.transitions import Flag, State, Transition
from plants import QUAD, SMALL, random_dynamics

UNSURE = {'nominal': 0.45, 'r1': 0.45, 'new': 0.1}
SURE = {'nominal': 0.99, 'r1': 0.01, 'new': 0.0}
SIZE = 0.1


def probing(spec, amplitude=SIZE):
    return spec.model_copy(update={'probing': Probing(amplitude=amplitude)})


def belief(dynamics, regimes, stamp_ns=1):
    ds = len(dynamics.spec.state)
    theta, factor = dynamics.nominal_theta.astype(np.float32), np.zeros((dynamics.size, 4))
    offset, noise = np.zeros(ds, np.float32), np.full(ds, 0.01, np.float32)
    factor = factor.astype(np.float32)
    return Belief(stamp_ns, 1, theta, factor, offset, noise, 40.0, regimes, 'r1', '')


DYNAMICS = random_dynamics()
SPEC = probing(QUAD)
HOVER = SPEC.neutral.astype(np.float32)
HALF = SPEC.action_half_range


def added(probe, regimes=UNSURE, safety=None, steps=1):
    safety = safety or Safety(SPEC)
    told = belief(DYNAMICS, regimes)
    return np.array([probe.add(HOVER, told, safety) - HOVER for _ in range(steps)])


def test_no_shipped_robot_probes_unless_its_file_is_changed():
    assert all(load_robot(name).probing.amplitude == 0 for name in robot_names())
    probe = Probe(QUAD, 0)
    assert probe.add(HOVER, belief(DYNAMICS, UNSURE), Safety(QUAD)) is HOVER


def test_a_robot_file_says_how_much_and_mistakes_are_named():
    text = QUAD.dump().replace('amplitude: 0.0\n  entropy: 0.5', 'amplitude: 0.2\n  entropy: 0.7')
    assert parse_robot(text).probing == Probing(amplitude=0.2, entropy=0.7)
    for wrong, named in (('amplitude: 2', 'amplitude'), ('entropy: -1', 'entropy')):
        other = text.replace(f'{named}: 0.{"2" if named == "amplitude" else "7"}', wrong)
        with pytest.raises(UserError, match=rf'probing\.{named}'):
            parse_robot(other)


def test_doublets_are_as_large_as_wanted_and_leave_nothing_behind():
    seen = added(Probe(SPEC, 0), steps=40 * HOLD)
    np.testing.assert_allclose(np.abs(seen), np.tile(SIZE * HALF, (len(seen), 1)), rtol=1e-5)
    np.testing.assert_allclose(seen.reshape(-1, 2 * HOLD, 2).sum(axis=1), 0, atol=1e-5)
    assert len({tuple(np.sign(s)) for s in seen}) == 4  # commands move together and apart
    np.testing.assert_array_equal(seen, added(Probe(SPEC, 0), steps=40 * HOLD))
    assert not np.array_equal(seen, added(Probe(SPEC, 1), steps=40 * HOLD))


def test_a_robot_that_knows_where_it_is_is_left_alone_once_a_doublet_is_over():
    probe = Probe(SPEC, 0)
    assert not added(probe, SURE).any()
    first, rest = added(probe, UNSURE), added(probe, SURE, steps=2 * HOLD + 3)
    assert first.all()
    np.testing.assert_allclose((first.sum(axis=0) + rest.sum(axis=0)), 0, atol=1e-5)
    assert not rest[2 * HOLD - 1 :].any()


def stopped(safety):
    safety.stop('test')


def doubtful(safety):
    safety.authority = 0.4


def overruled(safety):
    safety.check(np.array([20.0, 20.0]))


@pytest.mark.parametrize('why', [stopped, doubtful, overruled])
def test_nothing_is_added_where_safety_does_not_allow_it(why):
    probe, safety = Probe(SPEC, 0), Safety(SPEC)
    assert added(probe, safety=safety).all()
    why(safety)
    assert not added(probe, safety=safety).any()


REGIMES = st.sampled_from([UNSURE, SURE])
WANTED = st.lists(
    st.tuples(st.floats(-5, 20, width=32), st.floats(-5, 20, width=32), REGIMES), max_size=25
)


@settings(max_examples=40)
@given(WANTED, st.floats(0.01, 1.0))
def test_probing_never_passes_a_limit(wanted, amplitude):
    actions = [a.model_copy(update={'slew': 40.0}) for a in QUAD.action]
    spec = probing(QUAD.model_copy(update={'action': actions}), amplitude)
    dynamics = replace(DYNAMICS, spec=spec)
    controller, last = Controller(dynamics), spec.neutral
    for tick, (left, right, regimes) in enumerate(wanted, start=1):
        stamp = tick * spec.period_ns
        state = State(stamp, np.float32([0, 1.5, 0, 0, 0, 0]))
        plan = Plan(stamp, np.float32([[left, right]]), np.zeros(2))
        act = controller.answer(state, belief(dynamics, regimes, stamp), plan, 0.0)
        if act.command is None:
            continue
        assert (act.command >= spec.action_low).all()
        assert (act.command <= spec.action_high).all()
        assert (np.abs(act.command - last) <= 40.0 * spec.period + 1e-4).all()
        last = act.command.astype(float)


# ---------------------------------------------------------------------- what it is for
WORN = [{'actuator_gain': {'actuator': 'left', 'factor': 0.5}}]


class Bench:
    """The vehicle, its learner and what is between them, without a planner."""

    def __init__(self, prior, spec):
        self.plant, self.spec = sim.make('diffdrive'), spec
        prior = replace(prior, dynamics=replace(prior.dynamics, spec=spec))
        self.learner = Learner(prior, LearnerConfig(background=False))
        self.controller = Controller(prior.dynamics, seed=0)
        self.rng = np.random.default_rng(0)
        self.x, self.step = np.zeros(6), 0
        self.past = np.tile(spec.neutral, (DELAYS, 1))

    def live(self, steps, shifts, commands):
        self.plant.set_shifts([sim.shift_from_dict(s) for s in shifts])
        for _ in range(steps):
            stamp = (self.step + 1) * self.spec.period_ns
            noise = self.plant.sensor_noise * self.rng.standard_normal((2, 6))
            before = np.float32(self.x + noise[0])
            plan = Plan(stamp, np.float32(commands(self.rng))[None], np.zeros(2))
            told = self.learner.belief()
            act = self.controller.answer(State(stamp, before), told, plan, time.perf_counter())
            u = act.command
            self.x = self.plant.one_step(self.x[None], u[None].astype(float), self.past[None])[0]
            self.past = np.vstack([u, self.past[:-1]])
            after = np.float32(self.x + noise[1])
            stamp += self.spec.period_ns
            self.learner.observe(
                Transition(before, u, after, self.spec.period, stamp, Flag(0), self.step, 0)
            )
            self.step += 1
            yield self.learner.belief().entropy


def moving(rng):
    return rng.uniform(-10, 10, 2)


def resting(rng):
    return np.zeros(2)


@pytest.fixture(scope='module')
def vehicle_prior():
    spec = load_robot('diffdrive')
    return pretrain(sim.make('diffdrive'), spec, SMALL)


def test_probing_tells_regimes_apart_that_look_alike_at_rest(vehicle_prior):
    until, worn = {}, {}
    for amplitude in (0.0, 0.2):
        spec = probing(load_robot('diffdrive'), amplitude)
        bench = Bench(vehicle_prior, spec)
        names = []
        for shifts in ([], WORN, []):
            list(bench.live(150, shifts, moving))
            names.append(bench.learner.regime)
        assert names[1] not in (names[0], 'new')
        told = [*bench.learner.library.names, 'new']
        bench.learner.filter.probabilities = dict.fromkeys(told, 1 / len(told))
        entropy = np.array(list(bench.live(40, [], resting)))
        sure = np.append(entropy <= spec.probing.entropy, True)  # or never
        until[amplitude] = int(np.argmax(sure))
        worn[amplitude] = bench.learner.filter.probabilities.get(names[1], 0.0)
    assert 0 < 2 * until[0.2] <= until[0.0]
    assert worn[0.2] < 0.5 * worn[0.0]
