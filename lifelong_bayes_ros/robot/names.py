"""Full names of topics, and which parts of a robot file may not share one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spec import RobotSpec

NAMESPACE = '/lifelong'  # of the nodes, unless they are started in another one
OWN = (  # topics that the nodes have among themselves, see `nodes.topics`
    *('transition', 'episode', 'belief/trunk', 'belief/head', 'belief/memory', 'belief/policy'),
    *('learner_state', 'learner_state/display', 'event', 'choice', 'action', 'plan'),
    *('uncertainty', 'uncertainty/display', 'uncertainty/plan'),
    *('policy/estop', 'sim_robot/regime', '/clock', '/diagnostics', 'markers', 'predicted_path'),
    *('predicted_pose', 'memory_map'),
)


def full_name(topic: str, namespace: str = NAMESPACE) -> str:
    """A topic's name as `ros2 topic list` shows it."""
    if topic.startswith('/'):
        return topic
    return '/' + '/'.join(filter(None, (namespace.strip('/'), topic)))


def check_topics(spec: RobotSpec, namespace: str = NAMESPACE) -> None:
    """Refuse topics that cannot be shared: ROS gives each one type, and nodes hear themselves.

    Sources and outcomes may read the same messages.

    Raises:
        ValueError: naming the key, the value and the mend.
    """
    uses = {f'sources.{name}': source for name, source in spec.sources.items()}
    uses |= {f'outcomes.{name}': outcome for name, outcome in spec.outcomes.items()}
    uses |= {'goal_input': spec.goal_input} if spec.goal_input else {}
    uses |= {'command': spec.command}
    own = {full_name(topic, namespace) for topic in OWN}
    first: dict[str, str] = {}
    for key, used in uses.items():
        topic = full_name(used.topic, namespace)
        if topic in own:
            raise ValueError(
                f'{key}.topic: {topic} is a topic of the nodes themselves; give another one'
            )
        other = first.setdefault(topic, key)
        if used.type != uses[other].type:
            raise ValueError(
                f'{key}.topic: {topic} is {used.type} here, but {uses[other].type} in {other}; '
                'ROS gives a topic one type: correct one of them'
            )
        if other != key and key in ('goal_input', 'command'):
            raise ValueError(
                f'{key}.topic: {topic} is the topic of {other}, too; give {key} its own'
            )
