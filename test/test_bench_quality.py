"""The benches measure what they say."""

import pytest
import torch

from lifelong_bayes_ros.blr import GaussNewton, Rule
from lifelong_bayes_ros.experiments import bench_optimizer, bench_quality


@pytest.fixture(scope='module')
def tasks():
    return bench_quality.tasks()


def test_no_test_example_is_seen_before_the_test(tasks):
    for task in tasks:
        training, test = bench_quality.split(task, 0)
        assert len(training[0]) == task.train
        assert len(test[0]) == len(task.x) - task.train
        # Changing test examples changes nothing that was seen.
        order = torch.randperm(len(task.x), generator=torch.Generator().manual_seed(0))
        x = task.x.clone()
        x[order[task.train :]] += 100
        changed = bench_quality.split(bench_quality.Task(**(vars(task) | {'x': x})), 0)
        assert torch.equal(changed[0][0], training[0])
        assert not torch.equal(changed[1][0], test[0])


def test_settings_are_chosen_on_examples_that_were_not_learned_from(tasks, monkeypatch):
    task = tasks[0]
    seen = []

    def method(task, x, y, decay, seed):
        seen.append(x)
        return lambda inputs: (
            torch.zeros(1, len(inputs), 1) if decay == 0.03 else 9 * torch.ones(1, len(inputs), 1)
        )

    monkeypatch.setitem(bench_quality.METHODS, 'guess', method)
    decay, noise = bench_quality.choose(task, 'guess', 0)
    # Standardised targets: the mean and the largest variance of the grid predict best.
    assert (decay, noise) == (0.03, max(bench_quality.NOISES))
    training = bench_quality.split(task, 0)[0][0]
    assert all(len(x) == task.train * 2 // 3 for x in seen)
    assert sum(len(x) for x in seen) == len(bench_quality.DECAYS) * 2 * len(training)


def test_likelihoods_are_those_of_torch(tasks):
    diabetes, digits = tasks
    outputs = torch.tensor([[[0.0]], [[2.0]]])
    expected = -torch.distributions.Normal(1.0, 1.5**0.5).log_prob(torch.tensor(0.3))
    assert diabetes.nll(outputs, torch.tensor([0.3]), 0.5) == pytest.approx(float(expected))
    outputs = torch.randn(3, 5, 10)
    mixed = torch.softmax(outputs, dim=2).mean(dim=0)
    labels = torch.arange(5)
    expected = torch.nn.functional.nll_loss(mixed.log(), labels)
    assert digits.nll(outputs, labels, 1.0) == pytest.approx(float(expected), rel=1e-5)


def test_calibration_of_a_calibrated_prediction(tasks):
    diabetes, digits = tasks
    y = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    figures = diabetes.calibration(torch.zeros(1, 20_000, 1), y, 1.0)
    assert figures['calibration error'] < 0.01
    assert figures['coverage of 90 %'] == pytest.approx(0.9, abs=0.01)
    assert diabetes.calibration(torch.zeros(1, 20_000, 1), y, 0.1)['calibration error'] > 0.2
    sure = torch.full((1, 1000, 10), -20.0)
    sure[:, :, 0] = 20.0
    wrong = digits.calibration(sure, torch.ones(1000, dtype=torch.long), 1.0)
    assert wrong['calibration error'] == pytest.approx(1) and wrong['coverage of 90 %'] == 0


def test_the_scale_of_the_posterior_stays_right():
    folds = bench_quality.scale(Rule(GaussNewton()), 0.95, (100, 200), 0)
    assert all(1 <= fold < 1.5 for fold in folds.values())


def test_every_optimizer_of_the_cost_bench_moves_its_weights(monkeypatch):
    monkeypatch.setitem(bench_optimizer.ROUNDS, '10k', 2)
    seconds = bench_optimizer.measure('10k', 'cpu')
    assert {'torch', 'adamw', 'ivon-opt'} <= set(seconds)
    assert all(len(s) == 2 and min(s) > 0 for s in seconds.values())
    rows = bench_optimizer._ratios('100k', 'cpu', seconds | {'kernel': [1e9, 1e9]})
    judged = [r for r in rows if r['bar'] is not None]
    assert [r['ok'] for r in judged] == [False, False]
