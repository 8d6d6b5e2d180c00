"""The policy posterior: what it sees, how it learns, when it acts, and that it does not forget."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong_bayes_ros.control import choice_wire
from lifelong_bayes_ros.control.controller import Controller
from lifelong_bayes_ros.control.planner import Planner
from lifelong_bayes_ros.control.policy_posterior import LAYERS, Choice, PolicyPosterior, Senses
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.learning.policy_learner import PolicyConfig, PolicyLearner, PolicyNetwork
from lifelong_bayes_ros.learning.policy_state import (
    POLICY,
    decode_policy,
    encode_policy,
    load_policy,
    save_policy,
)
from lifelong_bayes_ros.learning.policy_thread import EVERY, QUEUE, PolicyThread
from lifelong_bayes_ros.robot.policy import PolicySettings
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot
from lifelong_bayes_ros.robot.transitions import State
from plants import QUAD, random_dynamics
from test_control import some_belief, start

PERIOD = QUAD.period_ns
SMALL = PolicyConfig(width=16, least=32, capacity=300, lr=5e-3)
ROBOTS = ('quad', 'arm', 'diffdrive', 'cartpole')


def with_policy(dynamics, **settings):
    spec = dynamics.spec.model_copy(update={'policy': PolicySettings(**settings)})
    return replace(dynamics, spec=spec)


def a_robot(name='quad', **settings):
    return with_policy(random_dynamics(name), **(settings or {'learn': True}))


def taught(regime, count, seed, sign=1.0, senses=None, first=0):
    """Choices of a teacher: smooth in the inputs, its sign told by the last one, and noisy."""
    senses = senses or Senses(a_robot())
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1, 1, (count, senses.size)).astype(np.float32)
    inputs[:, -1] = sign
    plans = 0.5 * sign * np.sin(2 * inputs[:, :1] + inputs[:, 1:2])
    plans = np.repeat(plans, senses.outputs, axis=1) + 0.05 * rng.normal(
        size=(count, senses.outputs)
    )
    shape = (-1, len(senses.spec.action))
    return [
        Choice((first + n + 1) * PERIOD, regime, inputs[n], plans[n].reshape(shape).astype('f4'))
        for n in range(count)
    ]


def learned(choices, config=SMALL, seed=3):
    learner = PolicyLearner(Senses(a_robot()), config, seed)
    for choice in choices:
        learner.observe(choice)
    return learner


def error(learner, choices):
    plans = learner.plans(np.array([c.inputs for c in choices]))
    return float(np.mean(np.square(plans - np.array([c.plan.ravel() for c in choices]))))


@pytest.fixture(scope='module')
def pupil():
    return learned(taught('nominal', 250, 0))


# ---------------------------------------------------------------------- what it sees
def seen(senses, x, target, theta=None, past=None):
    dynamics, spec = senses._dynamics, senses.spec
    belief = some_belief(dynamics)
    belief = belief if theta is None else replace(belief, theta=theta.astype(np.float32))
    past = dynamics.history() if past is None else past
    return senses(belief, x, past, target, np.ones(len(spec.state)))


@pytest.mark.parametrize('robot', ROBOTS)
def test_the_nominal_plant_differs_in_nothing_and_an_actuator_in_its_gain(robot):
    dynamics = a_robot(robot)
    senses, spec = Senses(dynamics), dynamics.spec
    ds, da = len(spec.state), len(spec.action)
    target = np.zeros((spec.planner.horizon, ds))
    x = np.full(ds, 0.3)
    inputs = seen(senses, x, target)
    assert (inputs.shape, inputs.dtype) == ((senses.size,), np.float32)
    np.testing.assert_allclose(inputs[-ds - da :], 0, atol=1e-5)
    theta = dynamics.nominal_theta.copy()
    theta[dynamics.nominal.size] = -0.4  # g of the first actuator
    past = dynamics.history() + 0.2 * spec.action_half_range
    changed = seen(senses, x, target, theta, past)[-ds - da :]
    np.testing.assert_allclose(np.sinh(changed[ds:]), [-0.4, *[0.0] * (da - 1)], atol=1e-4)
    # The shift is what the model says, found independently: its design times the change.
    design = dynamics.design(x, past[0], past)
    wanted = design @ (theta - dynamics.nominal_theta)
    np.testing.assert_allclose(np.sinh(changed[:ds]), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(('robot', 'a', 'b', 'angle'), [('diffdrive', 0, 1, 2), ('quad', 1, 0, 2)])
def test_the_way_to_the_goal_is_in_the_frame_of_the_body(robot, a, b, angle):
    dynamics = a_robot(robot)
    senses, spec = Senses(dynamics), dynamics.spec
    rng = np.random.default_rng(0)
    x, target = np.zeros(len(spec.state)), np.zeros((spec.planner.horizon, len(spec.state)))
    target[:, [a, b]] = rng.normal(size=(len(target), 2))
    turned_x, turned = x.copy(), target.copy()
    cos, sin = np.cos(0.7), np.sin(0.7)
    turned_x[angle] = 0.7
    turned[:, angle] = 0.7
    # A turn by the angle takes channel a towards channel b.
    turned[:, a] = cos * target[:, a] - sin * target[:, b]
    turned[:, b] = sin * target[:, a] + cos * target[:, b]
    di, ds, da = len(dynamics.trunk.mean), len(spec.state), len(spec.action)
    away = slice(di, -ds - da)
    first, second = (seen(senses, *case)[away] for case in ((x, target), (turned_x, turned)))
    assert np.abs(first).max() > 0.5
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_angles_to_the_goal_go_the_shorter_way():
    dynamics = a_robot('arm')
    senses = Senses(dynamics)
    x, target = np.zeros(4), np.zeros((dynamics.spec.planner.horizon, 4))
    x[0], target[:, 0] = 3.1, -3.1
    di = len(dynamics.trunk.mean)
    away = np.sinh(seen(senses, x, target)[di]) * dynamics.spec.goal.scale
    assert away == pytest.approx(2 * np.pi - 6.2, abs=1e-4)


# ---------------------------------------------------------------------- the network
def test_inference_is_that_of_the_network_and_draws_mirror_each_other(pupil):
    posterior, inputs = pupil.posterior(), taught('nominal', 1, 9)[0].inputs
    advice = posterior(inputs, 2)
    np.testing.assert_allclose(advice.mean.ravel(), pupil.plans(inputs[None])[0], atol=1e-5)
    member = PolicyNetwork(*pupil.shape, SMALL.width, torch.Generator())
    with torch.no_grad():
        for n in LAYERS:
            weights = posterior._members[n][3].reshape(getattr(member, n).shape)
            getattr(member, n).copy_(torch.tensor(weights))
            np.testing.assert_allclose(
                posterior._members[n][3] + posterior._members[n][7],
                2 * np.atleast_2d(posterior.mean[n]),
                atol=1e-5,
            )
        plan = member(torch.tensor(inputs[None])).numpy().reshape(-1, 2)
    np.testing.assert_allclose(advice.draws[2], plan, atol=1e-5)


def test_curvature_by_hand_is_that_of_autograd():
    network = PolicyNetwork(5, 4, 6, torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.w3.normal_()
    inputs, eye = torch.randn(3, 5), torch.eye(4)
    found = [torch.zeros_like(p) for p in network.parameters()]
    for k in range(4):
        for total, part in zip(found, network.squares(inputs, eye[k].repeat(3, 1)), strict=True):
            total += part
    for at, p in enumerate(network.parameters()):
        wanted = torch.zeros_like(p)
        for row in inputs:
            for k in range(4):
                wanted += torch.autograd.grad(network(row[None])[0, k], p)[0].square()
        torch.testing.assert_close(found[at], wanted)


# ---------------------------------------------------------------------- learning
def test_choices_become_likelier_and_far_from_them_it_is_less_sure(pupil):
    held_out = taught('nominal', 100, 1)
    assert pupil.log_likelihood(held_out) > learned([]).log_likelihood(held_out) + 5
    assert error(pupil, held_out) < 0.3 * np.mean([np.square(c.plan) for c in held_out])
    posterior = pupil.posterior()
    near, far = (
        np.mean([posterior((scale * c.inputs).astype('f4'), 2).spread for c in held_out])
        for scale in (1.0, 3.0)
    )
    assert far > 1.5 * near
    untrained = learned([]).posterior()
    assert untrained.version == 0
    assert np.mean([untrained(c.inputs, 2).spread for c in held_out]) > 3 * near


def test_more_choices_make_it_surer(pupil):
    held_out = taught('nominal', 50, 1)
    few = learned(taught('nominal', 250, 0)[:50]).posterior()
    before, after = (
        np.mean([p(c.inputs, 2).spread for c in held_out]) for p in (few, pupil.posterior())
    )
    assert after < 0.8 * before


def copied(learner, folder):
    save_policy(learner, folder)
    return load_policy(folder, Senses(a_robot()))


def test_a_new_regime_does_not_unlearn_the_old_one(pupil, tmp_path):
    new = taught('r1', 250, 1, sign=-1.0, first=250)
    held_out, now = taught('nominal', 100, 2), taught('r1', 100, 3, sign=-1.0)
    fresh = error(pupil, held_out)
    kept, lost = copied(pupil, tmp_path), copied(pupil, tmp_path)
    lost.config = replace(SMALL, memory=False)
    for choice in new:
        kept.observe(choice)
        lost.observe(choice)
    assert error(kept, held_out) < 1.5 * fresh
    assert error(lost, held_out) > 3 * fresh
    assert error(kept, now) < 0.5 * np.mean([np.square(c.plan) for c in now])


def test_a_choice_keeps_its_own_label_and_speaks_softly_for_those_that_were_given_up():
    for capacity in (300, 50):
        home = learned(taught('nominal', 200, 0), replace(SMALL, capacity=capacity))
        shelf = home.shelves['nominal']
        shelf.own[::5] += 1  # what it has not learned
        own, soft = shelf.own.copy(), home.plans(shelf.inputs)
        known = np.mean((soft - own) ** 2 / home.noise, axis=1) < 2
        assert 0 < known.mean() < 1
        home.observe(taught('r1', 1, 1)[0])
        share = min(capacity / 200, 1.0)  # of the choices is kept
        wanted = np.where(known[:, None], share * own + (1 - share) * soft, own)
        np.testing.assert_allclose(home.shelves['nominal'].plans, wanted, atol=1e-6)
        if capacity == 300:
            continue
        for number in range(3):  # however often it is left, its own label weighs as much
            home.observe(taught('nominal', 1, 5 + number)[0])
            own, soft, seen = shelf.own.copy(), home.plans(shelf.inputs), shelf.seen
            known = np.mean((soft - own) ** 2 / home.noise, axis=1) < 2
            home.observe(taught('r1', 1, 9 + number)[0])
            wanted = np.where(known[:, None], own + (1 - 50 / seen) * (soft - own), own)
            np.testing.assert_allclose(shelf.plans, wanted, atol=1e-5)


def test_a_thread_that_has_not_begun_does_what_is_asked_for_later():
    thread, done = PolicyThread(PolicyLearner(Senses(a_robot()), SMALL, 3), PERIOD), []
    for _ in range(2):
        thread.later(done.append)
        thread.close()
    assert len(done) == 2


def test_choices_of_a_regime_that_is_found_out_are_its_own():
    choices = taught('nominal', 40, 0) + taught('new', 30, 1, first=40) + taught('r1', 5, 2)
    learner = learned(choices)
    assert {n: s.seen for n, s in learner.shelves.items()} == {'nominal': 40, 'r1': 35}


def test_numbers_that_are_none_are_left_out(pupil):
    (choice,) = taught('nominal', 1, 5)
    bad = replace(choice, inputs=np.full_like(choice.inputs, np.nan))
    before = {n: getattr(pupil.network, n).detach().clone() for n in LAYERS}
    pupil.observe(bad)
    assert all(torch.equal(before[n], getattr(pupil.network, n)) for n in LAYERS)


def same(first, second):
    return encode_policy(first.posterior(), '') == encode_policy(second.posterior(), '')


def test_a_resumed_life_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    choices = taught('nominal', 60, 0) + taught('r1', 50, 1, -1.0, first=60)
    choices += taught('nominal', 20, 2, first=110)
    config = replace(SMALL, capacity=40)  # the reservoir must draw
    whole, resumed = learned([], config), learned([], config)
    for number, choice in enumerate(choices):
        if number in (10, 45, 90):  # before it learns, in its first regime, and in the second
            resumed = copied(resumed, tmp_path)
            assert same(whole, resumed)
        whole.observe(choice)
        resumed.observe(choice)
    assert same(whole, resumed)
    assert not same(whole, copied(learned(choices[:-1], config), tmp_path))


def test_the_thread_gives_what_learning_at_once_gives(pupil):
    choices = taught('nominal', 100, 0)
    thread = PolicyThread(PolicyLearner(Senses(a_robot()), SMALL, 3), PERIOD, wait=False)
    taken = [thread.offer(c) for c in choices[: 2 * EVERY]]
    thread.ask(lambda learner: None)
    taken = [p for p in [*taken, thread.take()] if p is not None]
    assert taken[-1].stamp_ns == choices[2 * EVERY - 1].stamp_ns
    wanted = learned(choices[: 2 * EVERY]).posterior()
    assert encode_policy(taken[-1], '') == encode_policy(wanted, '')
    thread.close()
    thread.offer(choices[2 * EVERY])  # and it goes on
    assert thread.ask(lambda learner: learner.version) == 2 * EVERY + 1
    thread.close()


def test_what_comes_too_fast_is_left_out_and_counted():
    thread = PolicyThread(PolicyLearner(Senses(a_robot()), SMALL, 3), PERIOD, wait=False)
    gate = threading.Event()
    thread._submit(gate.wait)
    for choice in taught('nominal', QUEUE + 7, 0):
        assert thread.offer(choice) is None
    assert thread.left_out == 7
    gate.set()
    assert thread.ask(lambda learner: learner.version) == QUEUE
    thread.close()


# ---------------------------------------------------------------------- acting
def constant(senses, value, spread):
    """A posterior that plans one number, with about that epistemic sd."""
    shapes = {'w1': (senses.size, 4), 'b1': 4, 'w2': (4, 4), 'b2': 4}
    shapes |= {'w3': (4 + senses.size, senses.outputs), 'b3': senses.outputs}
    mean = {n: np.zeros(s) for n, s in shapes.items()}
    sd = {n: np.zeros(s) for n, s in shapes.items()}
    mean['b3'] += value
    sd['b3'] += spread
    return PolicyPosterior(mean, sd, np.full(senses.outputs, 0.01), 1, 100)


def state(tick):
    return State((tick + 1) * PERIOD, start(tick))


def act_late(dynamics, spread, **settings):
    controller = Controller(with_policy(dynamics, **settings))
    belief = some_belief(dynamics)
    first = controller.act(state(0), belief)
    controller.adviser.take(constant(controller.adviser.senses, 0.25, spread))
    act = controller.answer(state(1), belief, None, 0.0)
    return first, act


def test_a_sure_policy_acts_where_the_plan_is_late(tiny_prior):
    _, act = act_late(tiny_prior.dynamics, 0.02, alone=True)
    assert (act.late, act.alone) == (True, True)
    wanted = QUAD.neutral + 0.25 * QUAD.action_half_range
    np.testing.assert_allclose(act.command, wanted, rtol=1e-5)
    assert act.choice is None  # it does not teach itself


@pytest.mark.parametrize(('spread', 'settings'), [(0.6, {'alone': True}), (0.02, {'seed': True})])
def test_an_unsure_one_or_one_that_may_not_leaves_it_to_the_last_plan(
    tiny_prior, spread, settings
):
    first, act = act_late(tiny_prior.dynamics, spread, **settings)
    assert (act.late, act.alone) == (True, False)
    np.testing.assert_allclose(act.command, first.plan.actions[1], atol=1e-6)


def test_without_a_last_plan_an_unsure_policy_means_the_safe_action(tiny_prior):
    controller = Controller(with_policy(tiny_prior.dynamics, alone=True))
    controller.adviser.take(constant(controller.adviser.senses, 0.25, 0.6))
    act = controller.answer(state(0), some_belief(tiny_prior.dynamics), None, 0.0)
    np.testing.assert_allclose(act.command, QUAD.neutral, rtol=1e-6)
    assert not act.alone


def test_its_commands_go_through_safety_like_any_other(tiny_prior):
    controller = Controller(with_policy(tiny_prior.dynamics, alone=True))
    controller.adviser.take(constant(controller.adviser.senses, 0.25, 0.02))
    controller.safety.stop('test')
    act = controller.answer(state(0), some_belief(tiny_prior.dynamics), None, 0.0)
    np.testing.assert_allclose(act.command, QUAD.neutral, rtol=1e-6)


def test_proposals_are_tried_by_the_planner(tiny_prior):
    dynamics = tiny_prior.dynamics
    belief, x, past = some_belief(dynamics), start(0), dynamics.history()
    spec = QUAD.model_copy(
        update={'planner': QUAD.planner.model_copy(update={'candidates': 8, 'temperature': 1e-3})}
    )
    good = Planner(dynamics, 0)
    for _ in range(6):
        plan = good.plan(belief, 1, x, past)
    few = replace(dynamics, spec=spec)

    def cost(actions):
        target = good.cost.target(1 + PERIOD, spec.planner.horizon)
        weights = good.rollout.mean(belief)
        states = good.rollout.run(weights, x, actions[None], past)
        return float(good.cost(states, actions[None], past[0].astype('f4'), target)[0])

    alone, seeded = (
        Planner(few, 1).plan(belief, 1, x, past, proposals)
        for proposals in (None, plan.actions[None])
    )
    assert cost(seeded.actions) <= 1.05 * cost(plan.actions) < 0.9 * cost(alone.actions)
    many = np.repeat(plan.actions[None], 50, axis=0)  # the last plan is still tried, too
    assert np.isfinite(Planner(few, 1).plan(belief, 1, x, past, many).actions).all()


def test_one_that_only_learns_changes_no_command(tiny_prior):
    plain = Controller(tiny_prior.dynamics, 5)
    learning = Controller(with_policy(tiny_prior.dynamics, learn=True), 5)
    learning.adviser.take(constant(learning.adviser.senses, 0.25, 0.01))
    belief = some_belief(tiny_prior.dynamics)
    for tick in range(3):
        one, two = (c.act(state(tick), belief) for c in (plain, learning))
        np.testing.assert_array_equal(one.command, two.command)
        assert one.choice is None
        half = QUAD.action_half_range
        np.testing.assert_allclose(
            QUAD.neutral + two.choice.plan * half, two.plan.actions, atol=1e-5
        )
    assert plain.adviser is None


def test_shipped_robots_ask_for_no_policy_posterior():
    assert not any(load_robot(name).policy.used for name in ROBOTS)


# ---------------------------------------------------------------------- on the wire
class Message:
    def __init__(self, choice):
        self.data = choice_wire.encode(choice)
        sizes = choice_wire.sizes(choice)
        self.layout = type('L', (), {'dim': [type('D', (), d) for d in _dims(sizes)]})


def _dims(sizes):
    return [{'label': k, 'size': n} for k, n in sizes.items()]


def test_a_choice_survives_its_message():
    senses = Senses(a_robot())
    (choice,) = taught('r1', 1, 0)
    choice = replace(choice, stamp_ns=1_800_000_000_123_456_789)
    back = choice_wire.decode(senses, Message(choice))
    assert (back.stamp_ns, back.regime) == (choice.stamp_ns, 'r1')
    np.testing.assert_array_equal(back.inputs, choice.inputs)
    np.testing.assert_array_equal(back.plan, choice.plan)


def test_a_choice_of_another_robot_is_refused():
    (choice,) = taught('r1', 1, 0)
    with pytest.raises(UserError, match=r'choice of robot arm: expected .*same robot file'):
        choice_wire.decode(Senses(a_robot('arm')), Message(choice))


def test_what_is_damaged_or_of_another_robot_is_refused(tmp_path, pupil):
    senses = Senses(a_robot())
    data = encode_policy(pupil.posterior(), senses.fingerprint)
    again = decode_policy(data, senses.fingerprint)
    assert encode_policy(again, senses.fingerprint) == data
    with pytest.raises(UserError, match=r'belief/policy: .*learn it again'):
        decode_policy(data, Senses(a_robot('arm')).fingerprint)
    with pytest.raises(UserError, match=r'no policy\.safetensors there'):
        load_policy(tmp_path, senses)
    save_policy(pupil, tmp_path)
    path = tmp_path / POLICY
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r'policy\.safetensors'):
        load_policy(tmp_path, senses)
    with pytest.raises(UserError, match='takes 31 inputs and plans 40 numbers'):
        Controller(a_robot('arm', alone=True)).adviser.take(pupil.posterior())


def test_a_bad_setting_is_refused():
    text = QUAD.dump() + '\n'
    bad = text.replace('spread: 0.15', 'spread: -1')
    assert bad != text
    with pytest.raises(UserError, match=r'policy\.spread'):
        parse_robot(bad)


# ---------------------------------------------------------------------- what is published
def test_the_rows_judge_each_robot_and_the_worst():
    from lifelong_bayes_ros.experiments.bench_policy import policy_rows

    good = {'planner': 0.8, 'seeded': 0.8, 'alone': 0.8, 'quarter': 0.7, 'forgetful': 0.4}
    good |= {'spread': 0.1, 'spread off': 0.3, 'inference ms': 0.05, 'learning ms': 5.0}
    bad = good | {'alone': 0.6}
    rows = {r['name']: r for r in policy_rows({'quad': [good, good], 'arm': [good, bad]})}
    alone = rows['arm: alone at home after one life / planner']
    assert (alone['value'], alone['ok']) == (pytest.approx(0.875), True)
    assert rows['worst robot: alone at home after one life / planner']['value'] == alone['value']
    assert rows['arm: alone at home, with the K-prior / without']['value'] == pytest.approx(1.75)
    assert rows['quad: spread off the data / on it']['value'] == pytest.approx(3.0)
    late = policy_rows({'quad': [good | {'alone': 0.5}]})
    assert [r['ok'] for r in late if r['name'].startswith('quad: alone at home after')] == [False]
