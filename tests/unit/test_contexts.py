"""Context templates: seeded, bare prompt first, safe to fill."""

import pytest

from collateral.editing.prepare.context_templates import (
    check_templates,
    read_templates,
    sample_templates,
    write_templates,
)
from collateral.errors import CollateralError
from collateral.io.atomic import write_json


def test_templates_are_a_function_of_seed_and_lengths(model):
    first = sample_templates(model, [[3, 2], [6, 4]], 0)
    assert first == sample_templates(model, [[3, 2], [6, 4]], 0)
    assert first != sample_templates(model, [[3, 2], [6, 4]], 1)
    assert first[0] == "{}"
    assert len(first) == 7
    for template in first[1:]:
        assert template.endswith(". {}")
        assert template.count("{") == template.count("}") == 1
        assert "\n" not in template


def test_round_trip_and_checks(tmp_path):
    path = tmp_path / "contexts.json"
    write_templates(("{}", "Yes. {}"), path, "abc")
    assert read_templates(path) == ("{}", "Yes. {}")
    with pytest.raises(CollateralError, match=r"put the bare .* first"):
        check_templates(["Yes. {}", "{}"])
    with pytest.raises(CollateralError, match="exactly once"):
        check_templates(["{}", "No hole"])
    write_json(path, {"other": 1})
    with pytest.raises(CollateralError, match="holds no context templates"):
        read_templates(path)
