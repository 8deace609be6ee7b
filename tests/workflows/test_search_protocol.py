"""What a method of bench search may see: no tables are needed to check that."""

from __future__ import annotations

import numpy as np

from hwnas_sdk.workflows.search_protocol import Oracle

NAN = np.nan


def test_only_what_was_revealed_is_recalled():
    oracle = Oracle(np.array([10.0, 20.0, 30.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    everything = np.arange(4)
    known, values = oracle.recall(everything)
    assert not known.any()
    assert np.isnan(values).all()
    assert oracle.errors(np.array([2, 0])).tolist() == [30.0, 10.0]
    assert oracle.latencies(np.array([0, 3])).tolist() == [1.0, 4.0]
    # In the order asked, by column: an error that is known says nothing of the latency.
    known, values = oracle.recall(np.array([3, 2, 1, 0, 0]))
    expected = [[NAN, 4.0], [30.0, NAN], [NAN, NAN], [10.0, 1.0], [10.0, 1.0]]
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(known, ~np.isnan(expected))
    # To recall reveals nothing.
    assert oracle.revealed == {"accuracies": 2, "latencies": 2}
