"""When a change came, and when it may have come, by the surprise of the steps."""

from hypothesis import given
from hypothesis import strategies as st

from lifelong_bayes_ros.learning.surprise import REACH, WINDOW, Surprise


def after(*values: float) -> Surprise:
    surprise = Surprise()
    for nis in values:
        surprise.update(nis)
    return surprise


def test_a_plain_change_is_where_it_is_seen():
    surprise = after(*[0.8] * 20, 9.0, 8.0, 10.0)
    assert surprise.since_change() == surprise.since_doubt() == 3


def test_a_change_that_grew_slowly_may_have_begun_before_it_was_plain():
    surprise = after(*[0.8] * 20, *[1.8] * 9, 9.0)
    assert surprise.since_change() == 1
    assert surprise.since_doubt() == 10


@given(st.lists(st.floats(0, 100), max_size=40))
def test_what_is_not_sure_reaches_at_least_as_far_as_what_is_seen(values):
    surprise = after(*values)
    assert 1 <= surprise.since_change() <= WINDOW
    assert surprise.since_change() <= surprise.since_doubt() <= REACH
