"""What `factotum bench train` compares with: RecTools' SASRec and implicit's ALS, timed on the same data.

This file is run by the Python of a virtual environment of its own (`python rectools_rival.py DATA.npz SETTINGS.json OUT.json`), where
nothing of Factotum is installed: it imports only what is there. DATA: `users` and `items` (n,) int64, the rows of one user standing
together in order. The times are those of the calls a user of these libraries makes, without reading the file.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main(data: Path, settings: Path, out: Path) -> None:
    import numpy as np
    import pandas as pd
    import torch

    words = json.loads(settings.read_text(encoding="utf-8"))
    torch.set_num_threads(words["threads"])
    arrays = np.load(data, allow_pickle=False)
    users, items = arrays["users"], arrays["items"]
    frame = pd.DataFrame({"user_id": users, "item_id": items, "weight": 1.0})
    frame["datetime"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(frame)), unit="s")
    figures: dict[str, Any] = {"versions": {name: version(name) for name in ("rectools", "torch", "pm-implicit", "numpy")}}
    figures.update(sequence_model(frame, words))
    figures.update(factors(users, items, words))
    out.write_text(json.dumps(figures), encoding="utf-8")


def sequence_model(frame: Any, words: dict[str, Any]) -> dict[str, float]:
    """fit_s of all epochs, recommend_s for everybody."""
    from rectools import Columns  # type: ignore[import-not-found]
    from rectools.dataset import Dataset  # type: ignore[import-not-found]
    from rectools.models import SASRecModel  # type: ignore[import-not-found]
    from rectools.models.nn.item_net import IdEmbeddingsItemNet  # type: ignore[import-not-found]

    dataset = Dataset.construct(frame)
    model = SASRecModel(
        n_blocks=words["blocks"],
        n_heads=words["heads"],
        n_factors=words["dimensions"],
        dropout_rate=words["dropout"],
        session_max_len=words["window"],
        batch_size=words["batch"],
        loss="softmax",
        lr=words["learning_rate"],
        epochs=words["epochs"],
        verbose=0,
        item_net_block_types=(IdEmbeddingsItemNet,),
        recommend_batch_size=words["recommend_batch"],
        recommend_n_threads=words["threads"],
    )
    began = time.perf_counter()
    model.fit(dataset)
    fitted = time.perf_counter()
    answers = model.recommend(frame[Columns.User].unique(), dataset, k=words["k"], filter_viewed=True)
    ended = time.perf_counter()
    return {"fit_s": fitted - began, "recommend_s": ended - fitted, "answers": len(answers)}


def factors(users: Any, items: Any, words: dict[str, Any]) -> dict[str, float]:
    """als_stored_s: best k for everybody from the factors that training left; als_solved_s: each person's factor solved for anew
    from what they took, which is what somebody who came after training needs."""
    import numpy as np
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse

    table = sparse.csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)))
    model = AlternatingLeastSquares(factors=words["factors"], iterations=2, random_state=1, num_threads=words["threads"], use_gpu=False)
    model.fit(table, show_progress=False)
    people = np.arange(table.shape[0])
    figures: dict[str, float] = {}
    for name, anew in (("als_stored_s", False), ("als_solved_s", True)):
        best = np.inf
        for _ in range(words["repeats"]):
            began = time.perf_counter()
            model.recommend(people, table, N=words["k"], filter_already_liked_items=True, recalculate_user=anew)
            best = min(best, time.perf_counter() - began)
        figures[name] = best
    return figures


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
