"""An optimised model -> its files beside those of the plain one, and in their place."""

from __future__ import annotations

import os

from conversion.lowering import Lowered
from conversion.model_files import VARIABLES, write_graph
from conversion.optimize.folded_values import write_variables
from conversion.optimize.optimise import Optimised
from conversion.source import Source

GRAPH = "saved_model.pb"


def write(folder: str, plain: str, source: Source, exact: Lowered, made: Optimised) -> None:
    """The graph; the variables as well where some are new, else only a link to them.

    Args:
        plain: folder of the plain model.
        exact: the plain model, in float32.
    """
    own, theirs = (os.path.join(one, os.path.dirname(VARIABLES)) for one in (folder, plain))
    same = len(made.lowered.mapping.assignments) == len(exact.mapping.assignments)
    if made.lowered.folded or not same:
        write_variables(made, os.path.join(plain, VARIABLES), os.path.join(folder, VARIABLES))
    elif os.path.isdir(theirs):
        os.symlink(os.path.abspath(theirs), own)
    write_graph(folder, source, made.lowered)


def take_over(folder: str, target: str) -> None:
    """Move the files to the place of the plain model's, which go to `folder`.

    Nothing is deleted here. The plain model's folder is not in its final place yet.
    """
    own, theirs = (os.path.join(one, os.path.dirname(VARIABLES)) for one in (folder, target))
    if os.path.isdir(own) and not os.path.islink(own):
        os.rename(theirs, own + "_plain")
        os.rename(own, theirs)
    os.replace(os.path.join(folder, GRAPH), os.path.join(target, GRAPH))
