import numpy as np
import pytest

from histill.slides.readers.levels import level_for, scales


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("rounding", [np.floor, np.ceil, np.rint])
def test_sizes_that_were_rounded_give_the_nominal_factor(factor, rounding):
    for full in ((150_001, 99_997), (40_003, 30_001), (5_003, 4_097)):
        size = tuple(int(rounding(side / factor)) for side in full)
        levels, factors = scales([full, size])
        assert factors[1] == (factor, factor)
        assert levels[1].downsample == factor


def test_halving_again_and_again_stays_nominal():
    sizes = [(150_001, 99_999)]
    while min(sizes[-1]) > 200:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    assert [factor[0] for factor in scales(sizes)[1]] == [2**index for index in range(len(sizes))]


def test_a_size_of_no_whole_factor_keeps_its_ratio_on_each_axis():
    levels, factors = scales([(46_000, 32_893), (1024, 731)])
    assert factors[1] == (46_000 / 1024, 32_893 / 731)
    assert levels[1].downsample == pytest.approx(sum(factors[1]) / 2)


def test_what_the_format_states_is_kept():
    # The last tiles of some scanners reach beyond the picture, so their sizes say nothing.
    assert scales([(1000, 1000), (512, 512)], [1.0, 2.0])[1][1] == (2.0, 2.0)
    assert scales([(4003, 3001), (1000, 750)], [1.0, (4003 / 1000 + 3001 / 750) / 2])[1][1] == (4.0, 4.0)


def test_the_coarsest_level_that_is_fine_enough_serves():
    factors = [(1.0, 1.0), (2.0, 2.0), (4.0, 4.1)]
    assert [level_for(factors, *asked) for asked in ((0.5, 0.5), (1.999, 2.0), (1.9, 9), (4.0, 4.0), (4.1, 4.1))] == [
        0,
        1,
        0,
        1,
        2,
    ]
