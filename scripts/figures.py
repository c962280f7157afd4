"""Draw the figure of the opening page from the records: python scripts/figures.py"""

import matplotlib.pyplot as plt

from lggseg_utils import plots, runs

plots.set_style()
known, new = (runs.load_record(name).per_patient for name in ("known-patients", "new-patients"))
both = known.merge(new, on="patient", suffixes=("_known", "_new"))
figure = plots.paired_patients(both["dice_new"], both["dice_known"], "Dice, patient is new", "Dice, patient is known")
figure.savefig(runs.RECORDS / "figures" / "answer.png")
plt.close(figure)
