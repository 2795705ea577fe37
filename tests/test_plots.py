import numpy as np
import pytest

from simsiam_keras import plots


def plain(size, *values):
    """Images of one value each, `[n, size, size, 3]`."""
    images = np.array(values, "uint8")[:, None, None, None]
    return np.tile(images, (1, size, size, 3))


def runs(line):
    """(value, length) of what is equal along a line of pixels."""
    ends = [*(np.flatnonzero(np.diff(line.astype(int))) + 1), len(line)]
    return [
        (int(line[end - 1]), int(end - start))
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def test_a_pair_lies_above_each_other_and_pairs_side_by_side():
    grid = plots.pair_grid(plain(4, 10, 20, 30), plain(4, 11, 21, 31), columns=2)
    assert grid.shape == (2 * 12 - 2, 2 * 6 - 2, 3) and grid.dtype == "uint8"
    assert runs(grid[:, 0, 0]) == [(10, 4), (11, 4), (255, 4), (30, 4), (31, 4), (255, 2)]
    assert runs(grid[0, :, 0]) == [(10, 4), (255, 2), (20, 4)]
    assert runs(grid[12, :, 0]) == [(30, 4), (255, 6)]
    np.testing.assert_array_equal(
        plots.pair_grid(plain(4, 10), plain(4, 11), zoom=3)[::3, ::3],
        plots.pair_grid(plain(4, 10), plain(4, 11)),
    )


@pytest.mark.parametrize(
    "side, count, first_column, top_row",
    [
        (3, 1, [(50, 3), (255, 7)], [(10, 4), (50, 3), (255, 2), (20, 4), (60, 3)]),
        (
            3,
            3,
            [(50, 3), (51, 3), (255, 4)],
            [(10, 4), (50, 3), (52, 3), (255, 2), (20, 4), (60, 3), (62, 3)],
        ),
        (4, 2, [(50, 4), (51, 4), (255, 2)], [(10, 4), (50, 4), (255, 2), (20, 4), (60, 4)]),
    ],
)
def test_small_views_lie_to_the_right_of_their_pair(side, count, first_column, top_row):
    small = [plain(side, 50 + i, 60 + i) for i in range(count)]
    grid = plots.pair_grid(plain(4, 10, 20), plain(4, 11, 21), small)
    assert runs(grid[:, 4, 0]) == first_column
    assert runs(grid[0, :, 0]) == top_row
    assert {len(np.unique(grid[..., c])) for c in range(3)} == {4 + 2 * count + 1}
