"""Holm's adjustment worked by hand."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError


def test_holm():
    # Worked by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04 raised to the one before.
    np.testing.assert_allclose(gap.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(gap.holm([0.9, 0.8]), [1.0, 1.0])
    assert len(gap.holm([])) == 0


def test_what_is_no_probability_is_refused():
    with pytest.raises(UserError, match="between 0 and 1"):
        gap.holm([0.1, 1.2])
