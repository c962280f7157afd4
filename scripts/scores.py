"""Write records/scores.csv.gz: every score of every recorded training, as `records.score_training`.

    python scripts/scores.py

Run it after a record has been added. A test recomputes a part of the table.
"""

import pandas as pd

from lggseg_utils import records

if __name__ == "__main__":
    table = pd.concat(map(records.score_training, records.training_names()))
    records.write_scores(table, "scores.csv.gz")
    print(f"scores.csv.gz: {table['training'].nunique()} trainings, {len(table)} scores")
