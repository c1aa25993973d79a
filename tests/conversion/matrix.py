"""Every model in every input form, converted and measured -> the table in docs/conversion.md.

.venv/bin/python -m tests.conversion.matrix                  writes the table
.venv/bin/python -m tests.conversion.matrix bert wide        prints these models' rows
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from typing import List, Sequence

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError

with warnings.catch_warnings():  # TensorFlow 1.15 warns while its contrib is imported
    warnings.simplefilter("ignore")
    from tests.conversion.models import scoring
    from tests.conversion.models.harness import Prepared, Workshop
    from tests.conversion.models.text import TEXT
    from tests.conversion.models.vision import VISION

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs", "conversion.md")
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"
HEAD = "| model | form | max_absdiff | batch | seconds | nodes |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """One model in one form.

    Attributes:
        max_absdiff: of the scale of the output, the worst of all outputs and sizes of batch.
        seconds: of CPU that `convert` took, with its own proof but not the comparison above.
        expected: whether this is what the model's table in tests/conversion/models says.
    """

    model: str
    form: str
    expected: bool
    refused: str = ""
    max_absdiff: float = 0.0
    batch: str = ""
    seconds: float = 0.0
    nodes_before: int = 0
    nodes_after: int = 0

    def line(self) -> str:
        cells = [self.model, f"`{self.form}`"]
        if self.refused:
            cells += [f"refused: {self.refused}", "", "", ""]
        else:
            cells += [f"{self.max_absdiff:.1e}" if self.max_absdiff else "0", self.batch]
            cells += [f"{self.seconds:.1f}", f"{self.nodes_before} → {self.nodes_after}"]
        return "| " + " | ".join(cells) + " |\n"


def measure(prepared: Prepared, form: str, folder: str) -> Row:
    """Convert one form of a model, score it at every size, and say what came out."""
    model, out = prepared.model, os.path.join(folder, f"{prepared.model.name}-{form}")
    wanted = model.forms[form]
    prepared.form(form)  # the artifact itself is not part of the time
    start = cpu_seconds()
    try:
        scoring.convert_form(prepared, form, out)
    except InputError as error:
        expected = bool(wanted.refused) and wanted.refused in str(error)
        words = wanted.refused if expected else str(error).split("\n")[0]
        return Row(model.name, form, expected, refused=words)
    seconds = cpu_seconds() - start
    manifest = Bundle.open(out).manifest
    away = scoring.worst_difference(prepared, form, out)
    batch = manifest["batch"]["kind"]
    return Row(
        model.name,
        form,
        not wanted.refused and away <= wanted.atol and batch == wanted.batch,
        max_absdiff=away,
        batch=batch,
        seconds=seconds,
        nodes_before=manifest["nodes"]["before"],
        nodes_after=manifest["nodes"]["after"],
    )


def cpu_seconds() -> float:
    """Of this process and of those it waited for; a busy machine changes little of it."""
    return sum(os.times()[:4])


def with_table(page: str, rows: Sequence[Row]) -> str:
    """The page with these rows between its markers.

    Raises:
        ValueError: the page has not each marker once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"expected {BEGIN.strip()} and {END.strip()} once each in the page")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + HEAD + "".join(row.line() for row in rows) + END + after


def main(names: List[str]) -> int:
    models = [model for model in TEXT + VISION if not names or model.name in names]
    rows = []
    logging.getLogger("absl").setLevel(logging.ERROR)  # a partitioner that a TPU leaves out
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(os.path.join(folder, "models"))
        for model in models:
            for form in model.forms:
                rows.append(measure(workshop.prepare(model), form, folder))
                print(
                    rows[-1].line(), end="" if rows[-1].expected else "^ unexpected\n", flush=True
                )
    if not names:
        with open(PAGE, encoding="utf-8") as file:
            page = with_table(file.read(), rows)
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write(page)
    return 0 if all(row.expected for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
