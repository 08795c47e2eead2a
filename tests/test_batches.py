"""Runs of bounded bytes."""

import pytest

from pyparam._base.batches import batches


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([], []),
        ([200], [range(1)]),
        ([60, 40, 1, 200, 0, 0, 50, 50], [range(2), range(2, 3), range(3, 4), range(4, 8)]),
        ([0, 200, 0], [range(1), range(1, 2), range(2, 3)]),
    ],
)
def test_runs_of_at_most_so_many_bytes_or_of_one_entry(sizes, runs):
    assert list(batches(iter(sizes), 100)) == runs
