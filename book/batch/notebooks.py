"""One notebook over a grid of parameters, with papermill: python notebooks.py DATA OUT."""

import sys
from pathlib import Path

import papermill
from sklearn.model_selection import ParameterGrid

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_training.ipynb"
GRID = ParameterGrid({"seed": [0, 1], "augmentation": ["report"]})

data, out = sys.argv[1], Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
for point in GRID:
    name = f"seed{point['seed']}-{point['augmentation']}"
    parameters = {
        "profile": "smoke",
        "data_dir": data,
        "run_dir": str(out / name),
        "seed": point["seed"],
        "overrides": {"epochs": 1, "augmentation": point["augmentation"]},
    }
    papermill.execute_notebook(NOTEBOOK, out / f"{name}.ipynb", parameters, progress_bar=False)
