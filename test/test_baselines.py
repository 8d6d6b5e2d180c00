"""Every method drives through the same planner, and each is the method that its name says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import lifelong_bayes_ros_sim as sim
import plants
from lifelong_bayes_ros.dynamics.belief import predict
from lifelong_bayes_ros.dynamics.model import DELAYS, Prior
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments.agents import (
    METHODS,
    OracleAgent,
    Setting,
    methods_named,
)
from lifelong_bayes_ros.experiments.baselines import (
    family,
    history,
    history_training,
    randomised,
    retrain,
    rls,
)
from lifelong_bayes_ros.experiments.baselines.history import History, HistoryNetwork, seen
from lifelong_bayes_ros.experiments.baselines.network import Network
from lifelong_bayes_ros.experiments.baselines.single import SingleHead
from lifelong_bayes_ros.experiments.baselines.structured import Structured
from lifelong_bayes_ros.experiments.schedule import Life
from lifelong_bayes_ros.learning.pretrain import specialist
from lifelong_bayes_ros.robot.transitions import Flag, State

QUAD = plants.QUAD
LIFE = Life(robot='quad', regimes={'A': [], 'B': plants.LOSS}, phases=[('A', 60), ('B', 340)])
LEARNING = ['ours', 'single', 'walk', 'structured', 'rls', 'adam', 'ivon', 'retrain']
every_method = pytest.mark.parametrize('name', METHODS)


@pytest.fixture(scope='session')
def shelf(tmp_path_factory):
    """A cache of small networks, for those methods that train before life."""
    return tmp_path_factory.mktemp('cache')


@pytest.fixture
def make(monkeypatch, shelf, tiny_prior):
    """Methods by name, made small."""
    monkeypatch.setenv('LIFELONG_BAYES_CACHE', str(shelf))
    monkeypatch.setattr(retrain, 'EVERY', 150)
    monkeypatch.setattr(retrain, 'CONFIG', plants.SMALL)

    class Small(Setting):
        def specialists(self):
            other = replace(tiny_prior.dynamics, nominal=2 * tiny_prior.dynamics.nominal)
            return {'A': tiny_prior, 'B': replace(tiny_prior, dynamics=other)}

        def offline(self, network):
            return network(tiny_prior, config=plants.SMALL)

    return lambda name, seed=0: METHODS[name].make(Small(QUAD, tiny_prior, LIFE, seed))


def off_policy_error(agent, step=399) -> float:
    """Root mean square of one step with the left rotor worn, in units of the prior's y."""
    belief, dynamics = agent.belief(step), agent.controller.dynamics
    errors = [
        QUAD.wrap(t.next_state - predict(dynamics, belief, *known(t), dynamics.history()).mean)
        for t in plants.stream(plants.LOSS, 150, seed=8)
    ]
    return float(np.sqrt(np.mean(np.square(errors / plants.tiny_prior().dynamics.scale))))


def known(transition):
    return transition.state.astype(float), transition.action.astype(float)


# ---------------------------------------------------------------------- the contract
@every_method
def test_a_method_says_what_it_believes_of_its_own_dynamics(make, name):
    agent = make(name)
    for step, transition in enumerate(plants.stream(plants.LOSS, 80, seed=7)):
        belief = agent.belief(step)
        agent.observe(transition)
    belief, dynamics = agent.belief(80), agent.controller.dynamics
    assert agent.name == name
    assert belief.theta.shape == (dynamics.size,) and belief.theta.dtype == np.float32
    assert belief.factor.shape[0] == dynamics.size and belief.factor.dtype == np.float32
    assert np.all(belief.noise > 0) and belief.noise_dof > 2
    spread = predict(dynamics, belief, *known(transition), dynamics.history())
    assert all(np.isfinite(v).all() for v in (spread.mean, spread.epistemic, spread.aleatoric))
    act = agent.controller.act(State(transition.stamp_ns, transition.next_state), belief)
    assert np.all(act.command >= QUAD.action_low) and np.all(act.command <= QUAD.action_high)


@every_method
def test_one_seed_one_result(make, name):
    one, two = make(name, seed=3), make(name, seed=3)
    for transition in plants.stream(plants.LOSS, 30, seed=7):
        one.observe(transition)
        torch.rand(1)  # nobody draws from the global stream
        two.observe(transition)
    np.testing.assert_array_equal(one.belief(30).theta, two.belief(30).theta)
    np.testing.assert_array_equal(one.belief(30).factor, two.belief(30).factor)
    trunks = [a.controller.dynamics.trunk for a in (one, two)]
    np.testing.assert_array_equal(trunks[0].w1, trunks[1].w1)


@every_method
def test_what_tells_nothing_changes_nothing(make, name):
    agent = make(name)
    *before, last = plants.stream(plants.LOSS, 25, seed=7)
    for transition in before:
        agent.observe(transition)
    belief, dynamics = agent.belief(24), agent.controller.dynamics
    agent.observe(replace(last, flags=Flag.GAP))
    agent.observe(replace(last, next_state=np.full(6, np.nan, np.float32)))
    np.testing.assert_array_equal(agent.belief(24).theta, belief.theta)
    np.testing.assert_array_equal(agent.belief(24).noise, belief.noise)
    assert agent.controller.dynamics is dynamics


@pytest.mark.parametrize('name', LEARNING)
def test_those_that_learn_are_right_again_after_a_rotor_wears(make, name):
    agent = make(name)
    before = off_policy_error(agent)
    for transition in plants.stream(plants.LOSS, 400, seed=7):
        agent.observe(transition)
    assert off_policy_error(agent) < 0.6 * before


def test_names_are_resolved_in_the_order_of_the_registry():
    assert methods_named('adam, frozen') == ['frozen', 'adam']
    assert methods_named('all') == list(METHODS)
    for text, what in (('frozen,adm', "'adm'"), ('', 'none given')):
        with pytest.raises(UserError, match=what) as error:
            methods_named(text)
        assert all(name in str(error.value) for name in METHODS)


# ---------------------------------------------------------------------- each by itself
def test_the_oracle_changes_at_the_exact_boundary(make):
    agent = make('oracle')
    assert isinstance(agent, OracleAgent)
    nominal = plants.tiny_prior().dynamics.nominal
    for step, factor in ((0, 1), (59, 1), (60, 2), (399, 2)):
        belief = agent.belief(step)
        np.testing.assert_array_equal(agent.controller.dynamics.nominal, factor * nominal)
        head = belief.theta[: nominal.size]
        np.testing.assert_array_equal(head, (factor * nominal).ravel().astype(np.float32))


@pytest.mark.parametrize('forgetting', [1.0, 0.9])
def test_recursive_least_squares_is_weighted_ridge_regression(make, monkeypatch, forgetting):
    monkeypatch.setattr(rls, 'FORGETTING', forgetting)
    agent = make('rls')
    agent._bound = np.inf
    data = plants.stream(plants.LOSS, 40, seed=7)
    for transition in data:
        agent.observe(transition)
    dynamics = agent.dynamics
    rows = [known(t) for t in data]
    phi = dynamics.trunk.features(*(np.array(column) for column in zip(*rows)))
    y = np.array([dynamics.target(t.state.astype(float), t.next_state) for t in data])
    weight = forgetting ** np.arange(39, -1, -1.0)
    gram = (phi.T * weight) @ phi + forgetting**40 / rls.START * np.eye(phi.shape[1])
    change = np.linalg.solve(gram, (phi.T * weight) @ (y - phi @ dynamics.nominal.T)).T
    np.testing.assert_allclose(agent.weights, dynamics.nominal + change, atol=1e-6)


def test_recursive_least_squares_does_not_wind_up_at_rest(make):
    agent = make('rls')
    first = plants.stream([], 1, seed=1)[0]
    for _ in range(3000):
        agent.observe(first)
    assert np.trace(agent.p) <= len(agent.p) * rls.START / rls.FORGETTING + 1e-9
    assert np.linalg.eigvalsh(agent.p).min() > 0
    assert np.isfinite(agent.belief(0).factor).all()


def test_the_structured_filter_finds_gain_and_constant():
    dynamics = plants.random_dynamics('quad')
    dynamics = replace(dynamics, nominal=0.05 * dynamics.nominal)  # no pitch wraps around
    n, noise = dynamics.size, np.full(6, 1e-6)
    agent = Structured(Prior(dynamics, np.eye(n), np.zeros(n), noise, {}), seed=0)
    z = np.zeros(agent.basis.shape[1])
    z[[0, 2, -1]] = -0.4, 0.1, 0.2  # left rotor's gain and bias, and a constant in the last output
    theta = dynamics.nominal_theta + agent.basis @ z
    for _, sample in zip(range(400), plants.linear_samples(dynamics, theta, noise, seed=1)):
        agent.learn(sample.x, sample.u, sample.past, sample.x_next)
    # A bias and the constants look alike where the command acts alike everywhere; gains do not.
    np.testing.assert_allclose(agent.head.posterior.mean[:2], z[:2], atol=0.02)
    constant = agent.basis[:, -1]
    for seed in range(20, 25):
        sample = next(plants.linear_samples(dynamics, theta, noise, seed))
        design = dynamics.design(sample.x, sample.u, sample.past)
        np.testing.assert_allclose(design @ agent.theta(), design @ theta, atol=0.03)
        # A constant is one whatever the state.
        np.testing.assert_allclose(design @ constant, [0, 0, 0, 0, 0, 1], atol=1e-9)


def test_the_single_head_doubts_on_surprise_and_recalls_nothing(make):
    agent = make('single')
    assert isinstance(agent, SingleHead)
    found = []
    for shifts in ([], plants.LOSS, []):
        for transition in plants.stream(shifts, 150, seed=7, first=agent.learned):
            agent.observe(transition)
        found.append([(e.event, e.step) for e in agent.take_events()])
    assert found[0] == []
    for start, events in zip((150, 300), found[1:]):
        assert {kind for kind, _ in events} == {'shift'}
        assert events[0][1] - start <= 5
    assert agent.take_events() == []


def test_a_network_is_the_dynamics_that_it_was_made_from(tiny_prior):
    dynamics = tiny_prior.dynamics
    network = Network(dynamics)
    again = network.dynamics()
    for transition in plants.stream([], 5, seed=1):
        x, u = known(transition)
        expected = dynamics.design(x, u, dynamics.history()) @ dynamics.nominal_theta
        got = network(network.inputs(x[None], u[None]))[0].detach().numpy()
        np.testing.assert_allclose(got, expected, atol=1e-4)
        back = again.design(x, u, dynamics.history()) @ again.nominal_theta
        np.testing.assert_allclose(back, expected, atol=1e-4)


def test_the_gradient_methods_train_on_the_last_200_transitions(make, monkeypatch):
    agent = make('adam')
    batches = []
    monkeypatch.setattr(agent, 'descend', lambda x, y: batches.append(x))
    for transition in plants.stream([], 240, seed=1):
        agent.observe(transition)
    assert [len(b) for b in batches[:40:13]] == [1, 14, 27, 32]
    data = plants.stream([], 240, seed=1)
    window = torch.cat([agent.network.inputs(*(a[None] for a in known(t))) for t in data[-200:]])
    assert all((window == row).all(dim=1).any() for row in batches[-1])


def test_ivon_keeps_its_hands_off_the_global_stream(make):
    agent = make('ivon')
    state = torch.random.get_rng_state()
    for transition in plants.stream(plants.LOSS, 5, seed=7):
        agent.observe(transition)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.abs(agent.belief(5).factor).max() > 0


def test_a_history_shifts_the_first_bias(tiny_prior):
    """The trunk handed to the planner is the whole network with that history as its input."""
    dynamics = tiny_prior.dynamics
    width = len(dynamics.trunk.mean) + 6
    network = HistoryNetwork(dynamics, history.LENGTH * width)
    torch.nn.init.normal_(network.past, std=0.1, generator=torch.Generator().manual_seed(0))
    agent = History(replace(tiny_prior, dynamics=network.dynamics()), seed=0)
    data = plants.stream(plants.LOSS, 9, seed=7)
    for transition in data[:8]:
        agent.observe(transition)
    rows = [
        seen(dynamics, *(a.astype(float)[None] for a in (t.state, t.action, t.next_state)))
        for t in data[7:2:-1]
    ]
    x, u = known(data[8])
    inputs = torch.cat([network.inputs(x[None], u[None]), *map(torch.tensor, rows)], dim=1)
    expected = network(inputs.float())[0].detach().numpy()
    now = agent.controller.dynamics
    np.testing.assert_allclose(
        now.design(x, u, now.history()) @ now.nominal_theta, expected, atol=1e-4
    )


def test_any_of_the_family_spreads_a_batch_over_its_members():
    plant, rng = sim.make('quad'), np.random.default_rng(0)
    batch = family.AnyOfTheFamily(plant, seed=5)
    n = family.PLANTS + 10
    x, u = plant.sample_states(rng, n), plant.sample_actions(rng, n)
    past = np.repeat(u[:, None], DELAYS, axis=1)
    after = batch.one_step(x, u, past)
    members = np.random.default_rng(5)
    shifts = [plant.family(members) for _ in range(family.PLANTS)]
    for i in (0, 3, family.PLANTS + 3):
        plant.set_shifts(shifts[i % family.PLANTS])
        np.testing.assert_array_equal(after[i], plant.one_step(x[[i]], u[[i]], past[[i]])[0])


def test_networks_trained_before_life_are_kept(make, monkeypatch):
    names = ('randomised', 'history')
    trained = [make(name).controller.dynamics for name in names]
    monkeypatch.setattr(randomised, 'specialist', None)  # not called again
    monkeypatch.setattr(history_training, '_train', None)
    for name, before in zip(names, trained, strict=True):
        kept = make(name).controller.dynamics
        np.testing.assert_array_equal(kept.trunk.w1, before.trunk.w1)
        np.testing.assert_array_equal(kept.nominal, before.nominal)


def test_retraining_is_what_trains_an_oracle_on_all_data_so_far(make, monkeypatch, tiny_prior):
    monkeypatch.setattr(retrain, 'EVERY', 40)
    agent = make('retrain', seed=4)
    data = plants.stream(plants.LOSS, 80, seed=7)
    for transition in data[:39]:
        agent.observe(transition)
    assert agent.controller.dynamics is tiny_prior.dynamics
    for transition in data[39:]:
        agent.observe(transition)
    steps = [(*known(t), t.next_state.astype(float)) for t in data]
    expected = specialist(retrain.Recorded(steps, 4), QUAD, plants.SMALL, 4)
    np.testing.assert_array_equal(agent.controller.dynamics.nominal, expected.dynamics.nominal)
    recorded = retrain.Recorded(steps, 4)
    together = sorted(np.concatenate([recorded.x, recorded.u, recorded.x_next], axis=1).tolist())
    assert together == sorted(np.concatenate(s).tolist() for s in steps)
