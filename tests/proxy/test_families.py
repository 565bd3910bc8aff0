"""Metrics in the form that Prometheus' library wants."""

from shadowcat.proxy.families import counter, counters, gauge, gauges, histogram, histograms
from shadowcat.telemetry import Histogram


def samples(family):
    return {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}


def test_names_have_the_prefix_and_counters_their_suffix():
    assert samples(counter("a", "A", 3)) == {("shadowcat_a_total",): 3}
    assert samples(gauge("b", "B", True)) == {("shadowcat_b",): 1.0}


def test_rows_have_their_labels():
    assert samples(counters("a", "A", ["x", "y"], {("1", "2"): 3})) == {("shadowcat_a_total", "1", "2"): 3}
    assert samples(gauges("b", "B", [], {})) == {}


def test_histograms_have_their_buckets_sum_and_count():
    values = Histogram((1.0,))
    values.observe(0.5)
    values.observe(2.0)
    expected = {
        ("shadowcat_h_bucket", "1.0"): 1,
        ("shadowcat_h_bucket", "+Inf"): 2,
        ("shadowcat_h_count",): 2,
        ("shadowcat_h_sum",): 2.5,
    }
    assert samples(histogram("h", "H", values)) == expected
    assert len(samples(histograms("h", "H", ["a"], {("x",): values, ("y",): values}))) == 8
