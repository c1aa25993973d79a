"""The table of models and forms, as docs/conversion.md shows it."""

from __future__ import annotations

import pytest

from tests.conversion.matrix import PAGE, Row, with_table

CONVERTED = Row(
    "bert",
    "tpu",
    True,
    max_absdiff=1.25e-7,
    batch="fixed",
    seconds=0.84,
    nodes_before=703,
    nodes_after=332,
)
REFUSED = Row("bert", "checkpoint", True, refused="checkpoint alone")


def test_the_table_between_the_markers_is_replaced_and_the_rest_stays():
    page = "above\n<!-- matrix: begin -->\nold\n<!-- matrix: end -->\nbelow\n"
    assert with_table(page, [CONVERTED, REFUSED]) == (
        "above\n"
        "<!-- matrix: begin -->\n"
        "| model | form | max_absdiff | batch | seconds | nodes |\n"
        "|---|---|---|---|---|---|\n"
        "| bert | `tpu` | 1.2e-07 | fixed | 0.8 | 703 → 332 |\n"
        "| bert | `checkpoint` | refused: checkpoint alone |  |  |  |\n"
        "<!-- matrix: end -->\n"
        "below\n"
    )


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="matrix: begin"):
        with_table("above\nbelow\n", [CONVERTED])


def test_the_page_of_this_repository_has_the_markers():
    with open(PAGE, encoding="utf-8") as file:
        assert "| bert |" in with_table(file.read(), [CONVERTED])
