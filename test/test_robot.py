"""The robot file: what it accepts, what it refuses and how it says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot, robot_names

TEXT = (share_dir() / 'config' / 'robots' / 'quad.yaml').read_text()


@pytest.mark.parametrize('name', robot_names())
def test_shipped_robots_load_and_survive_a_round_trip(name):
    spec = load_robot(name)
    again = parse_robot(spec.dump())
    assert again == spec
    assert again.fingerprint == spec.fingerprint


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('period: 0.03', 'perod: 0.03', ['perod', 'unknown key']),
        ('period: 0.03', 'period: fast', ['period', 'fast', 'number']),
        ('period: 0.03', 'period: -1.0', ['period', '-1.0', 'greater than']),
        ('period: 0.03', 'period: .nan', ['period', 'nan']),
        ('low: 0.0, high: 12.0', 'low: 13.0, high: 12.0', ['action.0', 'low 13.0', 'below']),
        ('neutral: 4.905', 'neutral: 40.0', ['neutral 40.0', 'within']),
        ('source: odom, field: position.x', 'source: gps, field: position.x', ['gps', 'sources']),
        ('name: z,', 'name: x,', ['state', 'twice']),
        ('derivative_of: pitch', 'derivative_of: roll', ['derivative_of', 'roll', 'pitch']),
        ('    z: {center: 1.5', '    alt: {center: 1.5', ['goal.track', 'alt']),
        ('type: nav_msgs/msg/Odometry', 'type: nav_msgs/msg/Path', ['sources.odom.type', 'Path']),
        ('x: x, z: z', 'x: x, z: height', ['view', 'height']),
        ('name: quad', '', ['name', 'missing']),
    ],
)
def test_faults_are_named_with_key_value_and_mend(old, new, words):
    assert old in TEXT
    with pytest.raises(UserError) as caught:
        parse_robot(TEXT.replace(old, new, 1), 'my.yaml')
    message = str(caught.value)
    for word in ['my.yaml', *words]:
        assert word in message


def test_every_fault_is_listed_at_once():
    text = TEXT.replace('period: 0.03', 'period: x').replace('slew: 400.0', 'slew: y', 1)
    with pytest.raises(UserError) as caught:
        parse_robot(text)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize('text', ['', '- a\n- b', 'a: [', '\x00'])
def test_files_that_are_no_robot_are_refused(text):
    with pytest.raises(UserError):
        parse_robot(text)


def test_unknown_robot_names_the_known_ones():
    with pytest.raises(UserError, match=r"unknown robot 'quadd'.*arm.*quad"):
        load_robot('quadd')
    with pytest.raises(UserError, match='does not exist'):
        load_robot('/nowhere/robot.yaml')


@given(st.floats(-50, 50), st.integers(-3, 3))
def test_wrapping_angles(angle, turns):
    spec = load_robot('quad')
    x = np.zeros(6)
    x[2] = angle + 2 * np.pi * turns
    wrapped = spec.wrap(x)[2]
    assert -np.pi < wrapped <= np.pi
    assert np.cos(wrapped - angle) == pytest.approx(1.0, abs=1e-9)


@given(st.integers(0, 2**62))
def test_reference_is_exact_at_wall_clock_stamps(stamp):
    """Modular arithmetic in integers: a stamp and the same stamp plus whole periods agree."""
    spec = load_robot('quad')
    period = 6_000_000_000
    one, rate = spec.reference(stamp % period)
    two, rate_two = spec.reference(stamp)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(rate, rate_two)


def test_reference_rate_is_its_derivative():
    spec = load_robot('arm')
    step = 1_000
    before, after = (spec.reference(10**9 + d)[0] for d in (-step, step))
    rate = spec.reference(10**9)[1]
    np.testing.assert_allclose((after - before) / (2e-9 * step), rate, rtol=1e-3, atol=1e-3)


def test_score_is_one_on_the_reference_and_falls_with_distance():
    spec = load_robot('quad')
    x = np.zeros(6)
    x[:2] = spec.reference(10**9)[0][0]
    assert spec.score(10**9, x) == pytest.approx(1.0)
    x[0] += 0.3
    assert spec.score(10**9, x) == pytest.approx(np.exp(-1))


def test_a_heading_reference_points_along_the_path_and_turns_with_it():
    spec = load_robot('diffdrive')
    period = round(spec.goal.track['x'].period / spec.period)
    places, rates = spec.reference(10**9, period)
    along = np.diff(places[:, :2], axis=0)
    heading = places[:-1, 2] + rates[:-1, 2] * spec.period / 2
    cross = along[:, 1] * np.cos(heading) - along[:, 0] * np.sin(heading)
    assert np.abs(cross).max() < 1e-4 * np.linalg.norm(along, axis=1).max() / spec.period
    assert np.all(along[:, 0] * np.cos(heading) + along[:, 1] * np.sin(heading) > 0)
    turned = np.angle(np.exp(1j * np.diff(places[:, 2]))) / spec.period
    np.testing.assert_allclose(turned, (rates[1:, 2] + rates[:-1, 2]) / 2, atol=1e-3)


def test_errors_count_in_the_score_as_they_weigh():
    spec = load_robot('diffdrive')
    x = np.array([*spec.reference(10**9)[0][0], 0.0, 0.0, 0.0])
    weight, scale = spec.goal.track['heading'].weight, spec.goal.scale
    assert spec.score(10**9, x + [0, 0, 0.2, 0, 0, 0]) == pytest.approx(
        np.exp(-0.2 * weight / scale)
    )


@pytest.mark.parametrize('along', ['[x, speed]', '[x, heading]', '[x]'])
def test_a_heading_needs_a_path_of_two_tracked_waves(along):
    text = (share_dir() / 'config' / 'robots' / 'diffdrive.yaml').read_text()
    with pytest.raises(UserError, match=r'goal.*along'):
        parse_robot(text.replace('along: [x, y]', f'along: {along}'))


def test_belief_relevant_changes_change_the_fingerprint():
    spec = load_robot('quad')
    for old, new in (('period: 0.03', 'period: 0.02'), ('high: 12.0', 'high: 11.0')):
        assert parse_robot(TEXT.replace(old, new)).fingerprint != spec.fingerprint
    assert parse_robot(TEXT.replace('scale: 0.3', 'scale: 0.4')).fingerprint == spec.fingerprint
