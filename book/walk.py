"""Follow one slice from its file to the verdict."""

from lggseg_utils import data, evaluate, metrics, preprocess, records, stats, train, verdict
from lggseg_utils.predict import REFERENCE

# Read: every file of the sample is opened and checked.
cohort = data.read_cohort()
row = cohort.slices["tumour_area"].idxmax()
patient = cohort.slices["patient"][row]

# Prepare: resized and scaled as the network's settings require.
network, settings = train.load_trained(REFERENCE)
dataset = preprocess.prepare(cohort, settings)
print("the network sees", dataset.images[row].shape)

# Predict: a probability of tumour for every pixel.
probability = evaluate.predict(network, dataset.images[[row]], settings)

# Count: true and false positives and negatives of this slice.
counts = evaluate.count(dataset.truths[[row]], probability).loc[0]
print("Dice of the slice:", metrics.dice(counts.tp, counts.fp, counts.fn).round(3))

# Score: the counts of all slices, summed per patient.
probabilities = evaluate.predict(network, dataset.images, settings)
per_slice = evaluate.score_slices(cohort.slices, dataset.truths, probabilities)
per_patient = evaluate.per_patient_table(per_slice.assign(split="test"))
dice = per_patient.set_index("patient")["dice"]
print("Dice of the patient:", dice[patient].round(3))

# How certain? How much would the mean change with other patients?
low, high = stats.interval_over_patients(lambda drawn: dice.to_numpy()[drawn].mean(-1), len(dice))
print(f"mean of {len(dice)} patients: {dice.mean():.3f} ({low:.3f} to {high:.3f})")

# Judge: recorded runs of the whole cohort answer a question about the report.
record = records.load_record("new-patients-1")
print("mean over all patients in that record:", record.per_patient["dice"].mean().round(3))
answer = verdict.judge("new-patients")
print("does it generalise well?", answer.answer, "-", answer.number)
