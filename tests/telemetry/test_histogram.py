"""Counting how often something took how long."""

from shadowcat.telemetry import Histogram


def test_each_bucket_counts_what_is_up_to_its_bound():
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)

    assert [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)] == histogram.buckets()
    assert histogram.count == 4
    assert histogram.total == 7.65
