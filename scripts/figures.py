"""Draw the figure of the opening page from the records: python scripts/figures.py"""

import matplotlib.pyplot as plt

from lggseg_utils import plots, records

plots.set_style()
known, new = (records.load_record(name).per_patient for name in ("known-patients", "new-patients"))
both = known.merge(new, on="patient", suffixes=("_known", "_new"))
figure = plots.paired_patients(
    both["dice_new"], both["dice_known"], "Dice, patient is new", "Dice, patient is known"
)
figure.savefig(records.RECORDS / "figures" / "answer.png")
plt.close(figure)
