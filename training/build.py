"""From a word of the YAML to a model. Importing this file imports no model: each arm brings in its own libraries."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from configs.domain import AlsModel, ClustersModel, ContentModel, NeighboursModel, PopularityModel, SasrecModel
from configs.domain import CandidateModel as Words
from training.contract import CandidateModel


def build(config: Words) -> CandidateModel:
    """A model that has learnt nothing yet."""
    match config:
        case PopularityModel():
            from training.candidates.popularity import Popularity

            return Popularity(config)
        case ContentModel():
            from training.candidates.content import Content

            return Content(config)
        case AlsModel():
            from training.candidates.als import Als

            return Als(config)
        case SasrecModel():
            from training.candidates.sasrec import Sasrec

            return Sasrec(config)
        case NeighboursModel():
            from training.candidates.neighbours import Neighbours

            return Neighbours(config)
        case ClustersModel():
            from training.candidates.clusters import Clusters

            return Clusters(config)
        case _:
            assert_never(config)


def load(config: Words, directory: Path) -> CandidateModel:
    """The model of this kind that `save` wrote to `directory`. Raises FileNotFoundError, ValueError."""
    model = type(build(config))
    return model.load(directory)
