"""What a refusal must be: one line, not too long."""

import pytest

from collateral.errors import CollateralError


def refused(match, call, *args):
    with pytest.raises(CollateralError, match=match) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    return str(caught.value)
