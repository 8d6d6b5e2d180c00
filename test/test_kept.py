"""Results that are kept: used as long as they would come out the same, made again otherwise."""

from dataclasses import dataclass

import pytest

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.experiments import kept
from lifelong_bayes_ros.experiments.bench_policy import PolicyUnit
from lifelong_bayes_ros.experiments.bench_risk import MEAN, RISK, RiskUnit


@dataclass(frozen=True)
class Squared:
    number: int
    unit: str = 'm'
    broken: bool = False

    @property
    def name(self):
        return str(self.number)

    def facts(self):
        return [self.unit]

    def run(self, progress):
        if self.broken:
            raise ValueError('no such square')
        return {'square': self.number**2}


def run(units, out):
    return kept.run_kept(units, out, 2, lambda what, share: None)


def test_what_is_kept_is_not_run_again_and_what_has_changed_is(tmp_path):
    units = [Squared(3), Squared(4)]
    assert run(units, tmp_path) == {units[0]: {'square': 9}, units[1]: {'square': 16}}
    # A broken one of the same name and facts shows who is run.
    assert run([Squared(3, broken=True)], tmp_path) == {Squared(3, broken=True): {'square': 9}}
    with pytest.raises(UserError, match='no such square'):
        run([Squared(3, unit='s', broken=True)], tmp_path)


def test_a_damaged_file_is_made_again(tmp_path):
    run([Squared(3)], tmp_path)
    file = tmp_path / '3.json'
    file.write_bytes(file.read_bytes()[:-5])
    assert run([Squared(3)], tmp_path) == {Squared(3): {'square': 9}}


def test_one_that_fails_loses_no_other(tmp_path):
    with pytest.raises(UserError, match='no such square'):
        run([Squared(2), Squared(5, broken=True)], tmp_path)
    kept_one = kept.kept(tmp_path / '2.json', kept.key_of(Squared(2)))
    assert kept_one in ({'square': 4}, None)  # None: it was not done yet when the other failed


def test_the_code_decides_too(monkeypatch):
    before = kept.key_of(Squared(3))
    monkeypatch.setattr(kept, 'code_hash', lambda: 'other')
    assert kept.key_of(Squared(3)) != before


def test_lives_of_a_bench_have_names_and_keys_of_their_own():
    units = [RiskUnit('quad', MEAN, 0), RiskUnit('quad', RISK, 0), RiskUnit('arm', MEAN, 0)]
    units += [PolicyUnit('quad', 0), PolicyUnit('arm', 0)]
    assert len({unit.name for unit in units}) == len(units)
    assert len({kept.key_of(unit) for unit in units}) == len(units)
