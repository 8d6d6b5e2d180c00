"""The robot file as its author meets it: every source and command, and every mistake told."""

import copy
import functools
import itertools
import json
import operator
import re

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lifelong_bayes_ros import cli
from lifelong_bayes_ros.errors import UserError
from lifelong_bayes_ros.paths import share_dir
from lifelong_bayes_ros.robot import names
from lifelong_bayes_ros.robot.check import connections, report, warnings
from lifelong_bayes_ros.robot.command import COMMAND_FIELDS
from lifelong_bayes_ros.robot.messages import FIELDS
from lifelong_bayes_ros.robot.section import Section
from lifelong_bayes_ros.robot.spec import load_robot, parse_robot, robot_names
from lifelong_bayes_ros.robot.transitions import Flag, StateAssembler, TransitionBuilder

FOLDER = share_dir() / 'config' / 'robots'
TEMPLATE = (FOLDER / 'template.yaml').read_text()
DATA = yaml.safe_load(TEMPLATE)


def changed(path, value, data=DATA):
    """The template with another value at a path of keys and indices."""
    data = copy.deepcopy(data)
    at = data
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return data


def without(path):
    data = copy.deepcopy(DATA)
    at = data
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    return data


def paths(value, at=()):
    """Every path into nested data, leaves and branches."""
    if at:
        yield at
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from paths(part, (*at, key))


PATHS = list(paths(DATA))
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from([1e308, -1e308, 5e-324, 10**400, 2**63, 'trolley', '/x', '~', 'a b', '.nan'])
)
NESTED = st.dictionaries(st.text(max_size=4), LEAF, max_size=2)
ANYTHING = LEAF | st.lists(LEAF, max_size=3) | NESTED


def use(spec):
    """What nodes do with a robot file, whatever its values."""
    assert spec.period_ns > 0
    value, rate = spec.reference(10**18, 3)
    assert value.shape == rate.shape == (3, len(spec.goal.track))
    assert 0 <= spec.score(10**18, np.zeros(len(spec.state))) <= 1
    assert len(spec.fingerprint) == 16
    report(spec, '/lifelong')
    assert parse_robot(spec.dump()) == spec


def taken_or_refused(text):
    """The file is of use, or each of its faults is told with a line."""
    said = ''
    try:
        spec = parse_robot(text, 'my.yaml')
    except UserError as error:
        said = str(error)
    if not said:
        use(spec)
    assert all(re.match(r'my\.yaml:\d+: \S', line) for line in said.splitlines())


# ---------------------------------------------------------------------- whatever is written
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), ANYTHING)
@example(('policy',), {'\r': None})
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_any_value_of_any_field_is_taken_or_refused_by_name(path, value):
    taken_or_refused(yaml.safe_dump(changed(path, value)))


@pytest.mark.parametrize('path', PATHS, ids=lambda p: '.'.join(map(str, p)))
def test_a_file_without_any_one_key_is_taken_or_refused_by_name(path):
    taken_or_refused(yaml.safe_dump(without(path)))


@settings(max_examples=200)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode('latin-1')))
def test_any_text_is_refused_without_a_traceback(text):
    with pytest.raises(UserError, match=r'my\.yaml'):
        parse_robot(text, 'my.yaml')


@pytest.mark.parametrize(
    'text',
    [
        '&a [*a]',
        'name: &a {b: *a}',
        '? [a]\n: b',
        'a: 2001-13-41',
        'a: !!python/object:os.system {}',
        '[' * 3000,
        'period: 0x' + 'f' * 6000,
        '<<: 3',
        '1: 2',
        'null: 1',
        'a: *b',
    ],
)
def test_yaml_that_tries_hard_is_refused(text):
    with pytest.raises(UserError, match=r'my\.yaml'):
        parse_robot(text, 'my.yaml')


# ---------------------------------------------------------------------- where and what
@pytest.mark.parametrize(
    ('old', 'new', 'key', 'words'),
    [
        ('period: 0.05', 'period: soon', 'period', ['soon', 'number']),
        ('rate: 100.0 ', 'rate: 0 ', 'sources.joints.rate', ['greater than 0', '0']),
        ('topic: /hook/angle', 'topic: hook angle', 'sources.hook.topic', ['no topic', 'letters']),
        ('topic: /hook/angle', 'topic: /hook/', 'sources.hook.topic', ['no topic']),
        ('frame: world', 'frame: /world', 'frame', ['no frame', '/world', 'without a leading /']),
        ('field: data[0]', 'field: data', 'state.swing.field', ['data', 'data[0]']),
        ('field: data[0]', 'field: data[x]', 'state.swing.field', ['data[x]', 'data[0]']),
        ('scale: 0.0174532925', 'scale: 0.0', 'state.swing.scale', ['0', 'another scale']),
        ('source: hook', 'source: hoook', 'state.swing.source', ['hoook', 'hook']),
        ('swing\n    source: hook\n', 'swing\n', 'state.swing.source', ['missing', 'hook']),
        ('difference\n', 'difference\n    scale: 2.0\n', 'state.swing_rate.scale', ['out']),
        ('encode: angle', 'encode: turns', 'state.1.encode', ['turns', "'wrap'"]),
        ('encode: angle', 'encode: angle\n    low: -4.0', 'state.swing.low', ['-4', '±π']),
        ('field: effort  ', 'field: torque  ', 'action.force.field', ['torque', 'position']),
        (
            '    joint: trolley_joint          # for',
            '    # for',
            'action.force.joint',
            ['missing', 'names the joint'],
        ),
        ('  frame: base_link', '  reach: 0.1', 'command.reach', ['leave it out']),
        ('neutral: 0.0', 'neutral: 0.0\n    neutral: 1.0', 'neutral', ['line', 'remove one']),
        ('scale: 0.3  ', 'scal: 0.3  ', 'goal.scal', ['unknown key']),
        ('frame: base_link', 'frame: /base_link', 'command.frame', ["'/base_link'", 'leading /']),
        ('frame: base_link', 'frame: ', 'command.frame', ['string', 'None']),
        (
            '\n    joint: trolley_joint\n    field: velocity',
            "\n    joint: ''\n    field: velocity",
            'state.2.joint',
            ['no joint', "''", 'messages'],
        ),
        ('joint: trolley_joint          # for', "joint: '' # for", 'action.0.joint', ['no joint']),
        ('joint: trolley_joint, field', "joint: ' ', field", 'outcomes.bump.joint', ['no joint']),
        ('{trolley: 10.0, swing: 5.0}', '{}', 'cost.track', ['nothing', 'at least 1']),
        ('{trolley: 10.0}', '{}', 'goal_input.track', ['nothing', 'at least 1']),
        ('[empty, box, barrel]', '[box]', 'outcomes.load.classes', ['holds 1', 'at least 2']),
        ('{mode: brake, ticks: 20}', '1', 'safe_action', ['keys and values', '`key: value`', '1']),
        (
            'field: data[0]\n',
            'field: data[0]\n  - name: swing2\n    source: hook\n    field: data[0]\n',
            'state.swing2',
            ['state.swing', 'remove one'],
        ),
        (
            'unit: rad/s\n    derivative_of: swing\n',
            'derivative_of: swing\n  - {name: too, field: difference, derivative_of: swing}\n',
            'state.too',
            ['state.swing_rate', 'remove one'],
        ),
    ],
)  # fmt: skip
def test_a_fault_names_file_line_key_value_and_mend(old, new, key, words):
    assert TEMPLATE.count(old) == 1
    text = TEMPLATE.replace(old, new)
    with pytest.raises(UserError) as caught:
        parse_robot(text, 'my.yaml')
    said = next(m for m in str(caught.value).splitlines() if f': {key}: ' in m)
    where, line = re.match(r'(my\.yaml):(\d+): ', said).groups()
    assert where == 'my.yaml'
    # The line of the key itself; of its parent, where the key is not there.
    there = text.splitlines()[int(line) - 1]
    assert any(part in there for part in key.split('.')[-2:])
    for word in words:
        assert word in said
    assert len(re.findall(rf': {key}[.:]', str(caught.value))) == 1  # told once


TOPICS = [p for p in PATHS if p[-1] == 'topic']


def refused(data):
    """What is said of a robot file."""
    with pytest.raises(UserError) as caught:
        parse_robot(yaml.safe_dump(data, sort_keys=False), 'my.yaml')
    return str(caught.value)


def test_every_topic_of_the_template_is_tried():
    parts = {p[0] for p in TOPICS}
    assert parts == {'sources', 'outcomes', 'goal_input', 'command'}


@pytest.mark.parametrize('path', TOPICS, ids='.'.join)
@pytest.mark.parametrize(
    'topic',
    ['', 'a b', '1abc', '/', '/a//b', '/a/', '/a-b', '{node}/x', '/joint_states/1x', 'a\n'],
)
def test_what_is_no_topic_is_refused_wherever_one_is_given(path, topic):
    said = refused(changed(path, topic))
    assert re.match(rf'my\.yaml:\d+: {".".join(path)}: this is no topic; give names of ', said)
    assert said.endswith(f'(got {topic!r})')


@pytest.mark.parametrize('path', TOPICS, ids='.'.join)
@pytest.mark.parametrize('topic', ['~/x', '~x', '~', '~/'])
def test_a_private_topic_is_refused_for_it_is_another_one_in_each_node(path, topic):
    said = refused(changed(path, topic))
    assert re.match(rf'my\.yaml:\d+: {".".join(path)}: .* in each node; leave ~ out', said)
    assert said.endswith(f'(got {topic!r})')


@pytest.mark.parametrize('path', TOPICS, ids='.'.join)
def test_a_topic_longer_than_ros_takes_is_refused(path):
    said = refused(changed(path, 'a' * 201))
    told = '201 characters are too many for ROS; give at most 200'
    assert re.match(rf'my\.yaml:\d+: {".".join(path)}: {told}', said)
    parse_robot(yaml.safe_dump(changed(path, 'a' * 200)), 'my.yaml')


JOINTS = {'topic': '/joint_states', 'type': 'sensor_msgs/msg/JointState'}
POSE = {'topic': '/lifelong/pose', 'type': 'geometry_msgs/msg/PoseStamped'}


@pytest.mark.parametrize(
    ('path', 'topic', 'mend'),
    [
        (('sources', 'hook'), '/joint_states', 'in sources.joints; .*: correct one'),
        (('outcomes', 'load'), '/hook/angle', 'in sources.hook; .*: correct one'),
        (('goal_input',), '/joint_states', 'in sources.joints; .*: correct one'),
        (('command',), '/joint_states', 'of sources.joints, too; give command its own'),
        (('command',), 'goal', 'in goal_input; .*: correct one'),
        (('command',), '/lifelong/goal', 'in goal_input; .*: correct one'),
        (('sources', 'hook'), 'belief/head', 'the nodes themselves; give another'),
        (('outcomes', 'load'), '/lifelong/event', 'the nodes themselves; give another'),
        (('goal_input',), 'plan', 'the nodes themselves; give another'),
        (('command',), '/diagnostics', 'the nodes themselves; give another'),
    ],
)
def test_a_topic_that_cannot_be_shared_is_refused(path, topic, mend):
    said, key = refused(changed((*path, 'topic'), topic)), '.'.join((*path, 'topic'))
    name = topic if topic.startswith('/') else f'/lifelong/{topic}'
    assert re.fullmatch(rf'my\.yaml:\d+: {key}: {name} is .*{mend}.*', said)


def test_states_are_no_goals():
    data = yaml.safe_load((FOLDER / 'quad.yaml').read_text())
    data['sources']['odom'] = POSE
    data['goal_input']['topic'] = 'pose'
    data['state'] = [c for c in data['state'] if c['name'] in ('x', 'z', 'pitch')]
    data['state'] += [
        {'name': f'v{c["name"]}', 'field': 'difference', 'derivative_of': c['name']}
        for c in data['state']
    ]
    del data['cost']['state']
    assert 'of sources.odom, too; give goal_input its own' in refused(data)
    data['goal_input']['topic'] = 'goal'
    parse_robot(yaml.safe_dump(data))


def test_sources_and_outcomes_may_read_the_same_messages():
    data = changed(('sources', 'hook'), JOINTS)
    data['state'][1] |= {'joint': 'hook_joint', 'field': 'position'}
    (said,) = warnings(parse_robot(yaml.safe_dump(data, sort_keys=False)))
    assert re.match('sources.hook.topic: /joint_states is that of sources.joints, too', said)
    data['state'][1]['joint'] = 'trolley_joint'
    assert 'state.swing: is the same reading as state.trolley' in refused(data)


def test_the_check_looks_at_the_names_in_its_namespace(tmp_path, capsys):
    file = tmp_path / 'crane.yaml'
    file.write_text(TEMPLATE.replace('topic: /trolley_controller/commands', 'topic: /crane/plan'))
    assert cli.main(['robot', 'check', str(file)]) == 0
    capsys.readouterr()
    assert cli.main(['robot', 'check', str(file), '--namespace', '/crane']) == 2
    said = ' '.join(capsys.readouterr().err.split())
    line = file.read_text().splitlines().index('  topic: /crane/plan') + 1
    assert f'{file}:{line}: command.topic: /crane/plan is a topic of the nodes' in said


def test_the_topics_of_the_nodes_are_known_without_ros():
    pytest.importorskip('rclpy')
    from lifelong_bayes_ros.nodes import topics

    assert sorted(names.OWN) == sorted(topic.name for topic in topics.FIXED)


@pytest.mark.parametrize(
    ('text', 'given'),
    [('', 'nothing'), ('# only a comment\n', 'nothing'), ('- a\n- b', "['a', 'b']"), ('7', '7')],
)
def test_a_file_without_keys_is_told_what_belongs_there(text, given):
    with pytest.raises(UserError) as caught:
        parse_robot(text, 'my.yaml')
    said = 'my.yaml:1: expected keys and values; write each on a line of its own, as `key: value`'
    assert str(caught.value) == f'{said} (got {given})'


@pytest.mark.parametrize('name', ['template', *robot_names()])
@pytest.mark.parametrize('value', [True, False])
def test_true_and_false_are_no_numbers(name, value):
    data = load_robot(FOLDER / f'{name}.yaml').model_dump(mode='json')
    told = f'true or false where a number belongs; give a number (got {value})'
    tried = 0
    for path in paths(data):
        if type(functools.reduce(operator.getitem, path, data)) in (int, float):
            tried += 1
            assert f': {".".join(map(str, path))}: {told}' in refused(changed(path, value, data))
    assert tried > 40


def test_true_is_told_with_its_line_and_a_whole_number_is_a_number():
    text = TEMPLATE.replace('period: 0.05', 'period: yes')
    line = text[: text.index('period: yes')].count('\n') + 1
    with pytest.raises(UserError, match=rf'^my\.yaml:{line}: period: true or false where .* True'):
        parse_robot(text, 'my.yaml')
    spec = parse_robot(TEMPLATE.replace('period: 0.05', 'period: 1'))
    assert spec.period == 1.0 and isinstance(spec.period, float)
    assert parse_robot(yaml.safe_dump(changed(('policy', 'seed'), True))).policy.seed is True


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match=r'robot\.yaml: cannot be read'):
        load_robot(path)


# ---------------------------------------------------------------------- the template
def test_the_template_loads_and_explains_every_key():
    spec = parse_robot(TEMPLATE)
    assert warnings(spec) == []
    assert 'template' not in robot_names()

    def keys(model):
        for name in type(model).model_fields:
            value = getattr(model, name)
            yield name
            for part in value if isinstance(value, list) else [value]:
                part = next(iter(part.values())) if isinstance(part, dict) and part else part
                if isinstance(part, Section):
                    yield from keys(part)

    for key in set(keys(spec)):
        assert re.search(rf'\b{key}\b', TEMPLATE), key
    for kind in (*FIELDS, *COMMAND_FIELDS):
        assert kind in TEMPLATE


@pytest.mark.parametrize(
    ('section', 'examples'),
    [
        ('planner', set()),
        ('policy', set()),
        ('probing', set()),
        ('goal_input', {'type', 'track'}),
        ('safety', {'limits', 'belief_timeout'}),
    ],
)
def test_the_template_shows_the_defaults(section, examples):
    shown = getattr(parse_robot(TEMPLATE), section)
    defaults = type(shown).model_fields
    for name in defaults.keys() - examples:
        default = defaults[name].get_default(call_default_factory=True)
        assert getattr(shown, name) == default, name


# ---------------------------------------------------------------------- differences, holding
def gantry():
    return parse_robot(TEMPLATE)


def feed(assembler, stamps, readings):
    """States from a trolley at rest and a hook whose angles are `readings`, rad."""
    found = []
    for stamp, angle in zip(stamps, readings, strict=True):
        assembler.update('hook', 0, {'swing': angle})
        joints = {'trolley': 0.1, 'trolley_speed': 0.0}
        found.append(assembler.update('joints', stamp, joints))
    return found


MS = 1_000_000


@given(st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=12))
def test_a_difference_is_the_wrapped_change_per_second(angles):
    assembler = StateAssembler(gantry())
    feed(assembler, [1], angles[:1])  # the hook is not held yet when the first stamp comes
    stamps = [k * 50 * MS for k in range(1, len(angles) + 1)]
    states = [s for s in feed(assembler, stamps, angles) if s is not None]
    assert not states[0].whole and states[0].x[3] == 0
    for before, state in itertools.pairwise(states):
        turned = np.angle(np.exp(1j * (float(state.x[1]) - float(before.x[1]))))
        seconds = (state.stamp_ns - before.stamp_ns) * 1e-9
        assert state.whole
        np.testing.assert_allclose(state.x[3], turned / seconds, rtol=1e-4, atol=1e-3)


def test_a_difference_across_a_gap_is_not_learned_from():
    spec = gantry()
    assembler, builder = StateAssembler(spec), TransitionBuilder(spec)
    feed(assembler, [1], [0.0])
    stamps = [k * 50 * MS for k in (1, 2, 3, 7, 8, 9)]
    flags = []
    for state in feed(assembler, stamps, [0.0, 0.1, 0.2, 0.5, 0.6, 0.7]):
        done = builder.add_state(state) + builder.add_command(state.stamp_ns, np.zeros(1))
        flags += [t.flags for t in done]
    assert flags == [Flag.FIRST, Flag.GAP, 0, Flag.GAP, Flag.GAP, 0]


def test_readings_without_a_stamp_are_held_but_not_for_long():
    assembler = StateAssembler(gantry())
    joints = {'trolley': 0.0, 'trolley_speed': 0.0}
    assert assembler.update('hook', 5, {'swing': 0.1}) is None  # there is no time yet
    assert assembler.update('joints', 50 * MS, joints) is None
    assert assembler.update('hook', 7, {'swing': 0.3}) is None
    state = assembler.update('joints', 100 * MS, joints)
    assert state.stamp_ns == 100 * MS and state.x[1] == np.float32(0.3)
    assert assembler.update('joints', 250 * MS, joints) is not None
    assert assembler.update('joints', 400 * MS, joints) is None  # max_age is 0.25 s
    assert assembler.skipped['sources apart in time'] == 1


def test_times_of_arrival_serve_where_nothing_has_a_stamp():
    """Who answers sees a state a little sooner or later than who pairs it with the answer."""
    data = changed(('sources', 'joints', 'type'), 'std_msgs/msg/Float64MultiArray')
    for at, index in ((0, 1), (2, 2)):
        data['state'][at] |= {'field': f'data[{index}]'}
        del data['state'][at]['joint']
    del data['goal_input'], data['outcomes']['bump']
    spec = parse_robot(yaml.safe_dump(data))
    assert spec.stamped == []
    assert any('none has a header' in w for w in warnings(spec))
    builder = TransitionBuilder(spec)
    assembler = StateAssembler(spec)
    paired = []
    for k in range(1, 40):
        stamp = k * 50 * MS
        assembler.update('hook', stamp, {'swing': 0.0})
        state = assembler.update('joints', stamp, {'trolley': 0.0, 'trolley_speed': 0.0})
        paired += builder.add_state(state)
        paired += builder.add_command(stamp + (-1) ** k * 3 * MS, np.array([k]))
    usable = [t for t in paired if t.usable]
    assert len(usable) > 30
    for t in usable:
        assert t.action[0] == round(t.stamp_ns / (50 * MS)) - 1


def test_an_angle_that_the_dynamics_do_not_see_is_wrapped_all_the_same():
    text = (FOLDER / 'base.yaml').read_text()
    spec = parse_robot(text.replace('unit: rad,   encode: angle', 'unit: rad,   encode: wrap'))
    assert spec.angles.tolist() == [False, False, True, False, False, False]
    assert spec.wrap(np.array([9, 9, 2 * np.pi + 0.1, 0, 0, 0]))[2] == pytest.approx(0.1)
    assert spec.fingerprint != load_robot('base').fingerprint


# ---------------------------------------------------------------------- robot check
@pytest.mark.parametrize('name', robot_names())
def test_shipped_robots_check_without_a_warning(name, capsys):
    assert cli.main(['robot', 'check', name, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    spec = load_robot(name)
    assert found['warnings'] == []
    assert found['sizes']['state'] == len(spec.state)
    topics = {c['topic']: c for c in found['connections']}
    for source in spec.sources.values():
        assert topics[f'/lifelong/{source.topic}']['type'] == source.type
    command = topics[f'/lifelong/{spec.command.topic}']
    assert command['direction'] == 'publish' and command['rate'] == pytest.approx(1 / spec.period)


def test_the_check_says_that_nothing_will_be_drawn(tmp_path, capsys):
    file = tmp_path / 'bare.yaml'
    file.write_text(load_robot('quad').model_copy(update={'view': None}).dump())
    assert cli.main(['robot', 'check', str(file), '--json']) == 0
    assert any(w.startswith('view:') for w in json.loads(capsys.readouterr().out)['warnings'])


def test_the_check_prints_what_a_person_needs(capsys):
    assert (
        cli.main(['robot', 'check', str(FOLDER / 'template.yaml'), '--namespace', '/crane']) == 0
    )
    said = capsys.readouterr().out
    for word in ('/joint_states', '/crane/goal', '100 Hz', 'best effort', 'swing_rate', 'brake'):
        assert word in said
    assert cli.main(['robot', 'check', 'nowhere.yaml']) == 2
    assert 'does not exist' in capsys.readouterr().err


def test_the_sizes_are_those_of_the_dynamics(tiny_prior, capsys):
    cli.main(['robot', 'check', 'quad', '--json'])
    sizes = json.loads(capsys.readouterr().out)['sizes']
    dynamics = tiny_prior.dynamics
    assert sizes['inputs'] == len(dynamics.trunk.mean)
    width = dynamics.trunk.w1.shape[1]
    rest = sizes['parameters'] - dynamics.size
    assert rest == len(dynamics.spec.state) * (64 - width)


@pytest.mark.parametrize(
    ('path', 'value', 'words'),
    [
        (('state', 2, 'unit'), 'mm/s', ['state.trolley_speed', 'mm/s', 'm/s']),
        (('state', 2, 'joint'), 'other', ['state.trolley_speed', 'other', 'trolley_joint']),
        (('state', 2, 'field'), 'effort', ['state.trolley_speed', 'effort', 'velocity']),
        (('state', 2, 'scale'), 2.0, ['state.trolley_speed', 'scale 2', 'trolley']),
        (('state', 0, 'low'), None, ['state.trolley', 'low', 'limits']),
        (('action', 0, 'slew'), None, ['action.force', 'slew']),
        (('sources', 'joints', 'rate'), 10.0, ['sources.joints.rate', '10 Hz', 'period to 0.1']),
        (('max_age',), 0.06, ['max_age', '0.06', 'two periods']),
        (('slop',), 0.05, ['slop', 'whole period']),
    ],
)
def test_what_is_odd_is_told(path, value, words):
    (said,) = warnings(parse_robot(yaml.safe_dump(changed(path, value))))
    for word in words:
        assert word in said


def test_names_are_as_ros_lists_them():
    spec = gantry()
    for namespace in ('lifelong', '/lifelong', '/lifelong/'):
        found = [c.topic for c in connections(spec, namespace)]
        assert found == [
            '/joint_states', '/hook/angle', '/joint_states', '/trolley/current', '/hook/load',
            '/lifelong/goal', '/trolley_controller/commands',
        ]  # fmt: skip
    assert connections(spec, '/')[5].topic == '/goal'
