"""Between two points a curve is a line in the logarithms, both ways."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.curves import error_at, rate_at

CURVE = [(1.0, 4.0), (2.0, 2.0), (8.0, 1.0)]


def test_points_and_middles():
    assert [error_at(CURVE, rate) for rate, _ in CURVE] == pytest.approx([4, 2, 1])
    assert [rate_at(CURVE, error) for _, error in CURVE] == pytest.approx([1, 2, 8])
    assert error_at(CURVE, 4.0) == pytest.approx(2**0.5) and rate_at(CURVE, 8.0) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.floats(0.3, 30))
def test_one_is_the_inverse_of_the_other(rate):
    assert rate_at(CURVE, error_at(CURVE, rate)) == pytest.approx(rate)
