"""What the records say about the report, by the criteria of `claims.yml`."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import permutations

import numpy as np
import pandas as pd

from lggseg_utils import arms, metrics, records, sources, stats
from lggseg_utils.arms import CLAIMS

QUESTIONS = {question["id"]: question for question in CLAIMS["questions"]}
WAYS = CLAIMS["ways"]
JOINED = list(WAYS)[-1]  # found by searching: it counts with trainings made afterwards alone
SINGLE = list(WAYS)[:-1]  # one definition for Dice and IoU alike
COUNTED = ["tp", "fp", "fn"]
SIDES = {"low": "lower", "high": "upper"}


class Verdict(StrEnum):
    """The four answers of `claims.yml`."""

    REPLICATED = "replicated"
    NOT_REPLICATED = "not replicated"
    NOT_DECIDED = "not decided"
    DISAGREE = "sources disagree"


@dataclass(frozen=True)
class Answer:
    """The answer to one question, how strong it is, and what it rests on.

    strength: '' where nothing is decided; number: the one that carries the answer; evidence: a
    sentence; table: what it was read from; records: names of the trainings that were asked; claim:
    which of the question's claims the number belongs to.
    """

    answer: Verdict
    strength: str
    number: str
    evidence: str
    table: pd.DataFrame
    records: tuple = ()
    claim: int = 0


@cache
def judge(name):
    """Return the `Answer` that the records give to the question of that id."""
    question = QUESTIONS[name]
    return RULES.get(name, RULES.get(question["rule"]))(question)


def together(answers):
    """Return the answer to a question with several claims: of one claim that fails, it fails."""
    answers = set(answers)
    if Verdict.NOT_REPLICATED in answers:
        return Verdict.NOT_REPLICATED
    return Verdict.NOT_DECIDED if Verdict.NOT_DECIDED in answers else Verdict.REPLICATED


# The rule for numbers


def judge_pair(reported, names, part, subset, way, reading=0.0, grid="128"):
    """Judge Dice and IoU of one table by the trainings `names`, under one way of counting.

    reported: a dictionary dice, iou; way: a dictionary dice, iou of definitions (values, unit,
    smooth), as in `WAYS`; reading: how far both reported may be off; grid: as in
    `arms.scores_of`. Returns a dictionary: answer, n (splits; trainings that share one count as
    one), and for each score its mean, half (of the interval) and whether it is met.
    """
    splits = [arms.split_of(name) for name in names]
    result = {"n": len(set(splits))}
    answers = []
    for score in ("dice", "iou"):
        values = arms.scores_of(names, part, subset, (score, *way[score]), grid)
        outcome = _judge_number(reported[score], values, splits, reading)
        answers.append(outcome.pop("answer"))
        result.update({f"{score}_{key}": value for key, value in outcome.items()})
    return {"answer": together(answers), **result}


def _judge_number(reported, values, splits, reading):
    """Judge one of two numbers: answer, mean, half-width of the 97.5% interval, met."""
    if len(set(splits)) < CLAIMS["seeds"] or np.isnan(values).any():
        return {"answer": Verdict.NOT_DECIDED, "mean": np.nan, "half": np.nan, "met": False}
    mean, half = stats.prediction_interval(values, splits, level=0.975)
    met = bool(abs(reported - mean) <= max(half, CLAIMS["margin"]) + reading)
    if half > CLAIMS["wide"]:
        answer = Verdict.NOT_DECIDED
    else:
        answer = Verdict.REPLICATED if met else Verdict.NOT_REPLICATED
    return {"answer": answer, "mean": mean, "half": half, "met": met}


def _reported(claim):
    """Return the reported Dice and IoU of a claim as a dictionary."""
    if "dice" in claim:
        return {"dice": claim["dice"], "iou": claim["iou"]}
    return {score: sources.reported(claim["set"], score) for score in ("dice", "iou")}


def _trainings(question, arm):
    """Return the trainings of an arm that a question asks, those of one setting where it says."""
    names = arms.trainings(arm)
    return [name for name in names if name.startswith(question.get("only", ""))]


def judge_arm(question, arm, keep=arms.ended_calmly, grid="128"):
    """Judge a question about numbers by one arm: a row for each subset of slices and way.

    keep: returns those of a list of trainings that judge; grid: as in `arms.scores_of`.
    """
    claim = question["claims"][0]
    names = keep(_trainings(question, arm))
    reading = CLAIMS["reading_error"] if "dice" in claim else 0.0
    rows = []
    for subset in question["subsets"]:
        for way in WAYS:
            judging = judging_by(way, names)
            outcome = judge_pair(
                _reported(claim), judging, claim["set"], subset, WAYS[way], reading, grid
            )
            rows.append({"arm": arm, "slices": subset, "way": way, **outcome})
    return pd.DataFrame(rows)


def judging_by(way, names):
    """Return those of some trainings that judge under a way of counting."""
    return list(filter(arms.is_new, names)) if way == JOINED else names


def _that_count(table):
    """Return the rows of `judge_arm` that rest on enough splits to decide."""
    return table[table["n"] >= CLAIMS["seeds"]]


def _arm_answer(question, arm, keep=arms.ended_calmly, grid="128"):
    """Return what the trainings of an arm that `keep` returns answer to a question of numbers."""
    return best_of(_that_count(judge_arm(question, arm, keep, grid))["answer"])


def best_of(answers):
    """Return what several ways of counting say: one that replicates suffices."""
    answers = set(answers)
    if Verdict.REPLICATED in answers:
        return Verdict.REPLICATED
    none_met = answers == {Verdict.NOT_REPLICATED}
    return Verdict.NOT_REPLICATED if none_met else Verdict.NOT_DECIDED


def _numbers(question):
    """Apply the rule for numbers: the first arm that can judge decides."""
    arm = next(arm for arm in question["arms"] if _can_judge(_trainings(question, arm)))
    table = judge_arm(question, arm)
    counting = _that_count(table)
    answer = best_of(counting["answer"])
    reported = _reported(question["claims"][0])
    row = _shown(counting, answer, reported)
    names = _trainings(question, arm)
    changed = _answers_without_one(question, arm, answer)
    hinges = _hinges(question, arm, counting) + ["hangs on one training"] * bool(changed)
    return Answer(
        answer,
        _strength(answer, hinges),
        _pair_number(row, reported),
        _pair_sentence(question, row, names, counting["answer"])
        + _augmented_sentence(question, row)
        + _without_sentence(changed, len(arms.ended_calmly(names)))
        + _spike_sentence(answer, _arm_answer(question, arm, keep=list)),
        table,
        tuple(names),
    )


def _pair_number(row, reported):
    """Return the Dice and IoU that carry an answer, and what their intervals do not show."""
    number = (
        f"Dice {row['dice_mean']:.3f} ± {row['dice_half']:.3f}, "
        f"IoU {row['iou_mean']:.3f} ± {row['iou_half']:.3f}"
    )
    if _too_wide(row):
        return f"{number} (too wide to say anything)"
    margin = _met_by_margin_alone(row, reported)
    return f"{number} ({margin} met by the margin of {CLAIMS['margin']})" if margin else number


def _met_by_margin_alone(row, reported):
    """Return which of Dice and IoU are met though they lie outside their interval, in words."""
    scores = ("Dice", "IoU")
    return " and ".join(score for score in scores if _met_by_margin(row, reported, score.lower()))


def _too_wide(row):
    """Return whether an interval of a row of `judge_arm` is too wide to say anything."""
    return max(row["dice_half"], row["iou_half"]) > CLAIMS["wide"]


def _pair_sentence(question, row, names, answers):
    """Return what the numbers of one way of counting rest on, and how the other ways came out."""
    reported = _reported(question["claims"][0])
    judging = judging_by(row["way"], names)
    outside = [score for score in ("Dice", "IoU") if not row[f"{score.lower()}_met"]]
    said = f"{' and '.join(outside)} missed" if outside else "both met"
    margin = _met_by_margin_alone(row, reported)
    if not outside and _too_wide(row):
        said += ", but an interval is too wide to say anything"
    said += f", {margin} by the margin alone" if margin else ""
    tally = ", ".join(f"{name} {count}" for name, count in answers.value_counts().items())
    return (
        f"Counted by {row['way']}, on {row['slices']}: {said}. This is the mean of "
        f"{row['n']} splits; ± is the 97.5% interval for one more training, and a number is met "
        f"inside it or within {CLAIMS['margin']} of the mean. "
        f"{_judges_sentence(row['way'], names)}. Of {len(answers)} ways of counting: "
        f"{tally}{_own_grid_sentence(question, row, judging)}"
    )


def _judges_sentence(way, names):
    """Return which trainings judge under a way of counting, and why."""
    calm = len(arms.ended_calmly(judging_by(way, names)))
    if way != JOINED:
        return f"Of {len(names)} trainings, the {calm} that did not end in a spike judge"
    return (
        f"This way was found by searching, so of {len(names)} trainings only those made since "
        f"count; {calm} of them did not end in a spike"
    )


def _own_grid_sentence(question, row, names):
    """Return what the trainings scored on their network's own grid have there; '' for none."""
    names, part = arms.calm_on_own_grid(names), question["claims"][0]["set"]
    if not names:
        return ""
    dice, iou = (
        arms.scores_of(names, part, row["slices"], (score, *WAYS[row["way"]][score]), "own").mean()
        for score in ("dice", "iou")
    )
    return (
        f". All this is on the 128x128 grid, to which predictions are enlarged; on the network's "
        f"own grid, Dice is {dice:.3f} and IoU {iou:.3f} (trainings scored there: {len(names)})"
    )


def _augmented_sentence(question, row):
    """Return what trainings with augmentation give, counted as in a row of `judge_arm`."""
    sentence = ""
    for arm in _against(question):
        table = judge_arm(question, arm).set_index(["slices", "way"])
        other = table.loc[(row["slices"], row["way"])]
        sentence += (
            f". Counted so, trainings with augmentation ({arm}) give a Dice of "
            f"{other['dice_mean']:.3f} ± {other['dice_half']:.3f} and an IoU of "
            f"{other['iou_mean']:.3f} ± {other['iou_half']:.3f}: {other['answer']}"
        )
    return sentence


def _against(question):
    """Return the arms with augmentation that can judge a question beside its own."""
    return [arm for arm in question.get("against", []) if _can_judge(arms.trainings(arm))]


def _spike_sentence(answer, with_spikes):
    """Return, in words, the answer with the trainings that ended in a spike; '' for the same."""
    if with_spikes == answer:
        return ""
    return f". If the trainings that ended in a spike judged too, the answer would be {with_spikes}"


def _met_by_margin(row, reported, score):
    """Return whether a number is met though it lies outside the interval."""
    distance = abs(reported[score] - row[f"{score}_mean"])
    return bool(row[f"{score}_met"]) and distance > row[f"{score}_half"]


def _can_judge(names):
    """Return whether trainings that did not end in a spike have enough splits to decide."""
    return len(set(map(arms.split_of, arms.ended_calmly(names)))) >= CLAIMS["seeds"]


def _hinges(question, arm, counting):
    """Return what an answer about numbers hangs on, as the parts of its strength."""
    parts = _model_parts(question, arm)
    replicated = counting["answer"] == Verdict.REPLICATED
    some_do = replicated.any() or _two_definitions_replicate(question, arm)
    if some_do and not replicated.all():
        parts.append("hangs on the definition")
    if any(_contradicts(judge_arm(question, other), counting) for other in _against(question)):
        parts.append("hangs on augmentation")
    if _arm_answer(question, arm, keep=list) != best_of(counting["answer"]):
        parts.append("hangs on leaving out spikes")
    by_grid = {_arm_answer(question, arm, arms.calm_on_own_grid, grid) for grid in ("128", "own")}
    if len(by_grid) > 1:
        parts.append("hangs on the grid")
    if not _can_judge(list(filter(arms.is_new, _trainings(question, arm)))):
        parts.append("exploratory")
    return parts


def _answers_without_one(question, arm, answer):
    """Return where leaving out one training changes an answer: other answer -> those trainings."""
    judging = arms.ended_calmly(_trainings(question, arm))
    changed = {}
    for left in judging:
        others = [name for name in judging if name != left]
        other = _arm_answer(question, arm, lambda _, others=others: others)
        if other != answer:
            changed.setdefault(other, []).append(left)
    return changed


def _without_sentence(changed, judging):
    """Return what `_answers_without_one` says, in words; judging: how many trainings judge."""
    sentence = ""
    for other, names in changed.items():
        if len(names) == judging:
            one = "any one of those that judge"
        elif len(names) > 1:
            one = f"any one of {', '.join(names[:-1])} and {names[-1]}"
        else:
            one = names[0]
        sentence += f". Without {one}, the answer would be {other}"
    return sentence


def _contradicts(other, table):
    """Return whether one result of `judge_arm` says the contrary of another, way by way."""
    replicated = table.index[table["answer"] == Verdict.REPLICATED]
    if (other["answer"] == Verdict.REPLICATED).any():
        return replicated.empty
    excluded = (other.loc[replicated, "answer"] == Verdict.NOT_REPLICATED).all()
    return excluded and not replicated.empty


def _two_definitions_replicate(question, arm):
    """Return whether Dice and IoU come out together if each is counted by a definition of its own.

    Such pairs do not decide: the criteria fixed none but one.
    """
    names, claim = arms.ended_calmly(_trainings(question, arm)), question["claims"][0]
    pairs = [
        {"dice": WAYS[one]["dice"], "iou": WAYS[other]["iou"]}
        for one, other in permutations(SINGLE, 2)
    ]
    return any(
        judge_pair(_reported(claim), names, claim["set"], subset, pair)["answer"]
        == Verdict.REPLICATED
        for subset in question["subsets"]
        for pair in pairs
    )


def _model_parts(question, arm=None):
    """Return the part of a strength that says that another network than the report's decides."""
    nearest = question.get("arms", [arm])[0]
    return ["not the report's model"] if "model" in question or arm != nearest else []


def _shown(table, answer, reported):
    """Return the row that stands for an answer: most numbers met, then the nearest."""
    rows = table[table["answer"] == answer].dropna(subset=["dice_mean"])
    met = rows["dice_met"].astype(int) + rows["iou_met"]
    far = (rows["dice_mean"] - reported["dice"]).abs() + (rows["iou_mean"] - reported["iou"]).abs()
    return rows.loc[(far - met).idxmin()]


def _strength(answer, parts):
    """Return the strength of an answer in words, '' for one that is not decided."""
    if answer == Verdict.NOT_DECIDED:
        return ""
    return "; ".join(parts) or "firm"


# The rule for differences


def judge_difference(question):
    """Return the `Answer` to a question of claims by the rule for differences."""
    rows = [{"claim": claim["text"], **claim_difference(claim)} for claim in question["claims"]]
    table = pd.DataFrame(rows)
    answer = together(table["answer"])
    row = table.iloc[0]
    parts = _model_parts(question) + question.get("hangs", [])
    if answer != Verdict.NOT_DECIDED and row["signs_differ"]:
        parts.append("hangs on a seed")
    if _hangs_on_margin(question["claims"][0], row):
        parts.append("hangs on the margin")
    number = _number(row)
    evidence = (
        f"The difference is {row['difference']:.3f} (95% interval {row['low']:.3f} to "
        f"{row['high']:.3f}, over {row['seeds']} seeds and {row['patients']} patients); by seed "
        f"{', '.join(f'{value:.3f}' for value in row['by_seed'])}"
    )
    if "hangs on the margin" in parts:
        end = min(("low", "high"), key=lambda end: abs(row[end] - CLAIMS["margin"]))
        evidence += f". To four digits, the interval's {SIDES[end]} end is {row[end]:.4f}"
    if "nearer" in question:
        evidence += _nearer_sentence(compare_nearer(question))
    names = tuple(
        arms.made(question["claims"][0]["more"]) + arms.made(question["claims"][0]["less"])
    )
    return Answer(answer, _strength(answer, parts), number, evidence, table, names)


def compare_nearer(question):
    """Compare, as `compare_arms`, networks nearer to the report's, of too few seeds to decide."""
    return compare_arms([question["nearer"]["more"]], [question["nearer"]["less"]])


def _nearer_sentence(row):
    """Return what networks nearer to the report's say beside an answer."""
    return (
        f". With a network nearer to the report's (one seed) it is {row['difference']:.3f} "
        f"({row['low']:.3f} to {row['high']:.3f}, over patients alone)"
    )


def claim_difference(claim):
    """Judge one claim by the rule for differences.

    Returns a dictionary: answer, difference, low, high, by_seed, seeds, patients, and
    signs_differ: whether a seed's difference has the other sign.
    """
    pairs = _paired(claim["more"], claim["less"])
    if claim["score"] == "validation Dice":
        part, score = "val", "dice_pooled"
    else:
        part, score = "test", claim["score"]
    result = compare_arms(*zip(*pairs, strict=True), part=part, score=score)
    if len(pairs) < CLAIMS["seeds"]:
        return {**result, "answer": Verdict.NOT_DECIDED}
    return {**result, "answer": _beyond(result["low"], result["high"], claim)}


def _paired(more, less):
    """Return pairs of lists of trainings, a pair a seed: of two lists of names, or of prefixes."""
    if isinstance(less, str):
        first, second = arms.with_prefix(more), arms.with_prefix(less)
        return [(first[seed], second[seed]) for seed in first if seed in second]
    pairs = zip(more, less, strict=True)
    return [([one], [other]) for one, other in pairs if len(arms.made([one, other])) == 2]


def _hangs_on_margin(claim, row):
    """Return whether a margin larger or smaller by a tenth gives another answer."""
    margins = (0.9 * CLAIMS["margin"], 1.1 * CLAIMS["margin"])
    others = [_beyond(row["low"], row["high"], claim, margin) for margin in margins]
    return row["answer"] != Verdict.NOT_DECIDED and any(other != row["answer"] for other in others)


def _beyond(low, high, claim, margin=CLAIMS["margin"]):
    """Return what an interval says of a claim of more, or of 'less than the margin'."""
    if claim.get("claimed") == "less than the margin":
        if high < margin:
            return Verdict.REPLICATED
        return Verdict.NOT_REPLICATED if low > margin else Verdict.NOT_DECIDED
    if high < margin:
        return Verdict.NOT_REPLICATED
    return Verdict.REPLICATED if low > 0 else Verdict.NOT_DECIDED


def compare_arms(more, less, part="test", score="dice_pooled"):
    """Compare two arms, paired by seed, over seeds and patients.

    more, less: for each seed a list of trainings, whose scores are averaged; of a seed, the
    patients count whom all its trainings have. part: the set of slices; score: 'dice_pooled' or
    'dice_patient_mean', of masks. Returns a dictionary: more, less (means), difference, low, high
    (95% interval by `stats.interval_over_seeds_and_patients`), by_seed, seeds, patients, and
    signs_differ: whether a seed's difference has the other sign.
    """
    scores = []
    for first, second in zip(more, less, strict=True):
        sums = [_patient_sums(name, part) for name in (*first, *second)]
        there = set.intersection(*(set(table.index) for table in sums))
        kept = [table[table.index.isin(there)] for table in sums]
        scores.append((kept[: len(first)], kept[len(first) :]))
    patients = sorted({name for pair in scores for table in pair[0] for name in table.index})
    sides = [_arm_scores([pair[side] for pair in scores], patients, score) for side in (0, 1)]
    difference, left = (one - other for one, other in zip(*sides, strict=True))
    _, low, high = stats.interval_over_seeds_and_patients(difference, left)
    return {
        "more": sides[0][0].mean(),
        "less": sides[1][0].mean(),
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "by_seed": tuple(difference),
        "seeds": len(difference),
        "patients": len(patients),
        "signs_differ": len(set(np.sign(difference))) > 1,
    }


@cache
def _patient_sums(name, part):
    """Return the counts of one training's set, summed by patient: tp, fp, fn."""
    scored = records.load_training(name)[0]
    return scored[scored["split"] == part].groupby("patient")[COUNTED].sum()


def _arm_scores(arm, patients, score):
    """Return an arm's scores, (seeds,), and those without each patient, (patients, seeds)."""
    whole, without = [], []
    for tables in arm:
        both = [_scores_without(table.reindex(patients), score) for table in tables]
        whole.append(np.mean([one for one, _ in both]))
        without.append(np.mean([left for _, left in both], axis=0))
    return np.array(whole), np.array(without).T


def _scores_without(sums, score):
    """Return one training's score, and its scores with each patient left out, float (patients,).

    sums: a table tp, fp, fn, a row a patient, NaN for a patient without slices in this set.
    """
    counts = sums.to_numpy(float)
    there = ~np.isnan(counts[:, 0])
    if score == "dice_pooled":
        counts = np.nan_to_num(counts)
        left = counts.sum(axis=0) - counts
        return metrics.dice(*counts.sum(axis=0)), metrics.dice(*left.T)
    dice = np.where(there, metrics.dice(*np.nan_to_num(counts).T), 0.0)
    return dice.sum() / there.sum(), (dice.sum() - dice) / (there.sum() - there)


# The rule for ratios


def claim_ratio(claim):
    """Judge a claim of two arms by the rule for ratios.

    Returns a dictionary: answer, ratio, low, high (95% interval), by_seed and seeds.
    """
    larger, than = arms.with_prefix(claim["larger"]), arms.with_prefix(claim["than"])
    ratios = [
        _mean_score(larger[seed], claim["score"]) / _mean_score(than[seed], claim["score"])
        for seed in larger
        if seed in than
    ]
    return _judged_by_seed(ratios, claim["matters"], null=1)


def claim_ratio_to_one(claim, names):
    """Judge by the rule for ratios a claim of trainings that are compared with 1.

    Trainings that share a split count as one. Returns what `claim_ratio` returns.
    """
    values = [arms.training_score(name, claim["score"]) for name in names]
    return _judged_by_seed(arms.by_split(names, values), claim["matters"], null=claim["matters"])


def _judged_by_seed(ratios, matters, null):
    """Return `judge_ratios`, and the ratios that it judged."""
    return {
        **judge_ratios(ratios, matters, null),
        "by_seed": tuple(ratios),
        "seeds": len(ratios),
    }


def _mean_score(names, score):
    """Return the geometric mean of a training score, NaN where one is not positive."""
    values = np.array([arms.training_score(name, score) for name in names])
    return np.exp(np.log(values).mean()) if (values > 0).all() else np.nan


def judge_ratios(ratios, matters, null=1):
    """Judge whether something is larger: answer, ratio, low, high (95% t interval of the log).

    matters: the factor that matters; null: what the interval must lie above. Not decided for fewer
    than three ratios, or one that is not positive.
    """
    ratios = np.asarray(ratios, dtype=float)
    if len(ratios) < CLAIMS["seeds"] or not (ratios > 0).all():
        unknown = dict.fromkeys(("ratio", "low", "high"), np.nan)
        return {"answer": Verdict.NOT_DECIDED, **unknown}
    mean, low, high = np.exp(stats.interval_over_seeds(np.log(ratios)))
    if high < matters:
        answer = Verdict.NOT_REPLICATED
    else:
        answer = Verdict.REPLICATED if low > null else Verdict.NOT_DECIDED
    return {"answer": answer, "ratio": mean, "low": low, "high": high}


def _ratios(question):
    """Apply the rule for ratios to all claims; to one that names `more`, that for differences."""
    found = [_ratio_claim(question, claim) for claim in question["claims"]]
    table = pd.DataFrame(found).drop(columns=["parts", "names", "augmented"], errors="ignore")
    answer = together(table["answer"])
    carrying = (table["answer"] == answer).idxmax()
    parts = _model_parts(question) + [part for row in found for part in row["parts"]]
    return Answer(
        answer,
        _strength(answer, list(dict.fromkeys(parts))),
        _number(table.loc[carrying]),
        "; ".join(map(_ratio_sentence, found)),
        table,
        tuple(dict.fromkeys(name for row in found for name in row["names"])),
        carrying,
    )


def _ratio_claim(question, claim):
    """Judge one claim: its numbers, the parts of its strength, and the trainings that decide."""
    told = {"claim": claim["text"], "score": claim["score"], "parts": []}
    if "more" in claim:
        names = _paired_names(claim["more"], claim["less"])
        return {**told, "ratio": np.nan, **claim_difference(claim), "names": names}
    if "than" in claim:
        names = _paired_names(claim["larger"], claim["than"])
        return {**told, **claim_ratio(claim), "names": names}
    arm = next(arm for arm in claim["larger"] if _can_judge(arms.trainings(arm)))
    names = arms.trainings(arm)
    outcome = claim_ratio_to_one(claim, names)
    parts = _model_parts({"arms": claim["larger"]}, arm)
    augmented = {
        other: claim_ratio_to_one(claim, arms.trainings(other))
        for other in question.get("against", [])
    }
    parts += _hangs_on_augmentation(augmented, outcome["answer"])
    return {**told, **outcome, "names": names, "parts": parts, "augmented": augmented}


def _paired_names(first, second):
    """Return the recorded trainings of some prefixes whose seed both sides have."""
    sides = arms.with_prefix(first), arms.with_prefix(second)
    both = [seed for seed in sides[0] if seed in sides[1]]
    return [name for side in sides for seed in both for name in side[seed]]


def _hangs_on_augmentation(augmented, answer):
    """Return the strength's part where augmented trainings decide the contrary.

    augmented: arm -> outcome, as `claim_ratio_to_one`.
    """
    others = {outcome["answer"] for outcome in augmented.values()}
    contrary = others - {answer, Verdict.NOT_DECIDED}
    return ["hangs on augmentation"] if contrary else []


def _number(row):
    """Return the number that carries a claim, a ratio or a difference, with its interval."""
    if np.isnan(row["low"]):
        return "unknown (too few ratios, or one that is not positive)"
    if not np.isnan(row.get("ratio", np.nan)):
        return f"{row['ratio']:.2f} times ({row['low']:.2f} to {row['high']:.2f})"
    text = f"{row['difference']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return text.replace("-", "\N{MINUS SIGN}")


def _ratio_sentence(row):
    """Return a claim, its answer and its number in words."""
    beside = [
        f"; trained with augmentation ({arm}) {outcome['answer']}, {_number(outcome)}"
        for arm, outcome in row.get("augmented", {}).items()
        if not np.isnan(outcome["ratio"])
    ]
    told = f"{row['claim']}: {row['answer']}, {_number(row)}, {row['seeds']} splits"
    return told + "".join(beside)


# Arithmetic


def _one_quantity(question):
    """Check by arithmetic whether the reported scores can describe the same predictions."""
    pairs = sources.implied_dice()
    above = pairs.loc[pairs["gap"].idxmax()].replace("train", "training")
    tumour, printed = sources.implied_tumour_iou(), sources.TABLES["test"]["jacard_coef"]
    apart = abs(tumour - printed) > CLAIMS["margin"]
    return Answer(
        Verdict.DISAGREE if above["gap"] > 0 or apart else Verdict.REPLICATED,
        "firm",
        f"Dice {above['dice']:.3f} where {above['implied']:.3f} is the most",
        f"Computed in the same way, an IoU of {above['iou']} allows a Dice of "
        f"{above['implied']:.4f} at most, but the table of the {above['set']} set prints "
        f"{above['dice']}. If it is pooled, the mean IoU of {sources.TABLES['test']['mean_iou']} "
        f"implies a tumour IoU of {tumour:.3f}, not {printed}; a mean over slices would not",
        pairs,
    )


def _sets_alike(question):
    """Compare reported error rates and the tumour share of validation with random tenths."""
    table = pd.DataFrame(
        _signs_in_tenths(by, name)
        for by, name in zip(("slice", "patient"), question["uses"], strict=True)
    )
    answer = _by_signs(table[["error ratio", "tumour share"]])
    tumour, error = _tumour_share("run 3"), CLAIMS["reading_error"]
    on_error = _by_signs(table[["error ratio", "larger error"]]) != answer
    return Answer(
        answer,
        _strength(answer, question["hangs"] + ["hangs on the reading error"] * on_error),
        f"{tumour - error:.1%} to {tumour + error:.1%} tumour",
        _signs_sentence(table),
        table,
        tuple(question["uses"]),
    )


def _tumour_share(run):
    """Return the tumour share of validation, if a reported run starts with an empty mask."""
    return 1 - sources.REPORTED["first_val_accuracy"][run]


def _signs_in_tenths(by, name):
    """Return in how many random tenths, drawn by 'slice' or 'patient', each sign occurs.

    name: of the training whose errors are drawn. Returns a dictionary: drawn, and shares of the
    draws.
    """
    errors = sources.error_ratios(records.load_training(name)[0], by)
    # Patients differ so much that only many draws tell how rare such a share is.
    shares = sources.tumour_shares(by, draws=200_000 if by == "patient" else stats.DRAWS)
    as_read = _tumour_share("run 3")
    return {
        "drawn": by,
        "error ratio": (errors >= sources.error_ratio()).mean(),
        "tumour share": (shares >= as_read - CLAIMS["reading_error"]).mean(),
        "as read": (shares >= as_read).mean(),
        "larger error": (shares >= as_read - 1.1 * CLAIMS["reading_error"]).mean(),
        "by run 1": (shares >= _tumour_share("run 1") - CLAIMS["reading_error"]).mean(),
    }


def _signs_sentence(table):
    """Return what both signs say, in words; table: rows of `_signs_in_tenths`."""
    shares = table.set_index("drawn")
    by_slice, by_patient = shares.loc["slice"], shares.loc["patient"]
    tumour = _tumour_share("run 3")
    least = tumour - CLAIMS["reading_error"]
    by_error, by_run_1 = (
        _by_signs(table[["error ratio", column]]) for column in ("larger error", "by run 1")
    )
    return (
        f"The error rate of validation is {sources.error_ratio():.2f} times that of test; so large "
        f"a ratio, either way round, occurs in {by_slice['error ratio']:.1%} of pairs of random "
        f"tenths drawn by slice and in {by_patient['error ratio']:.1%} by patient. If run 3 marks "
        f"nothing in its first epochs, their validation accuracy means {tumour:.2%} tumour, or "
        f"{least:.2%} within the reading error; {by_slice['tumour share']:.2%} and "
        f"{by_patient['tumour share']:.2%} of the tenths have that much. With a reading error "
        f"of {1.1 * CLAIMS['reading_error']:.3f}, the answer would be: {by_error}. Run 1 does not "
        f"rest, but starts near {1 - _tumour_share('run 1'):.3f}; if that were its empty mask, the "
        f"answer would be: {by_run_1}"
    )


def _by_signs(shares):
    """Return what two signs say.

    shares: a table of the shares of random tenths that show a sign, a row for each kind of draw, a
    column for each sign.
    """
    if (shares.max() < 0.001).any():
        return Verdict.NOT_REPLICATED
    usual = (shares > 0.05).all(axis=1).any()
    return Verdict.REPLICATED if usual else Verdict.NOT_DECIDED


RULES = {
    "number": _numbers,
    "difference": judge_difference,
    "ratio": _ratios,
    "one-quantity": _one_quantity,
    "sets-alike": _sets_alike,
}
