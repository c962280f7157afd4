"""Write records/scores.csv.gz: every score of every recorded training, as `records.score_training`.

    python scripts/scores.py

Run it after a record has been added. A test recomputes a part of the table.
"""

import gzip

import pandas as pd

from lggseg_utils import records

if __name__ == "__main__":
    table = pd.concat(map(records.score_training, records.training_names()))
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    path = records.RECORDS / "scores.csv.gz"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{path}: {table['training'].nunique()} trainings, {len(table)} scores")
