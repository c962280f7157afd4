"""Do the rules of `claims.yml` hold for us? Our own trainings, put in the report's place."""

from itertools import combinations, product

import numpy as np
import pandas as pd

from lggseg_utils import arms, exploration, verdict
from lggseg_utils.arms import CLAIMS


def try_rule_for_numbers(others):
    """Put trainings in the report's place and let the rule for numbers judge them.

    Each calm training of plain64 and each of `others` is judged under every way, on those of the
    three sets on which it is scored. Those that judge are the calm trainings of plain64 that have
    another split; under the way found by searching, the new ones of these. Returns a table
    training, kind ('same settings' or 'other settings'), set, way, splits (that judge), answer.
    """
    calm = arms.ended_calmly(arms.trainings("plain64"))
    rows = []
    for name in (*calm, *others):
        kind = "same settings" if name in calm else "other settings"
        strangers = [one for one in calm if arms.split_of(one) != arms.split_of(name)]
        for (part, subset), way in product(exploration.SCORED_ON.items(), verdict.WAYS):
            pair = exploration.pair_of(name, part, subset, way)
            if not np.isnan(list(pair.values())).any():
                judging = verdict.judging_by(way, strangers)
                found = verdict.judge_pair(pair, judging, part, subset, verdict.WAYS[way])
                rows.append((name, kind, part, way, found["n"], found["answer"]))
    return pd.DataFrame(rows, columns=["training", "kind", "set", "way", "splits", "answer"])


def by_table(tried):
    """Return what `try_rule_for_numbers` says of each table: one way that replicates suffices.

    Returns a table kind, training, set, answer.
    """
    grouped = tried.groupby(["kind", "training", "set"], sort=False)["answer"]
    return grouped.agg(verdict.best_of).reset_index()


def groups_of_three(names):
    """Return all pairs of groups of three trainings that have none in common."""
    pairs = []
    for first in combinations(names, 3):
        for second in combinations([name for name in names if name not in first], 3):
            if first < second:
                pairs.append((first, second))
    return pairs


def _compared(same, other):
    """Yield (kind, first, second): all groups of `same` with each other, then with `other`."""
    for first, second in groups_of_three(same):
        yield "same settings", first, second
    for first, second in product(combinations(same, 3), combinations(other, 3)):
        yield "other settings", first, second


def try_rule_for_differences(same, other):
    """Compare groups of three trainings by the rule for differences, on the Dice of training.

    same: trainings of equal settings, compared with each other; other: trainings of clearly other
    settings, compared with all groups of `same`. Returns a table kind, low, high, found (whether
    the interval excludes 0 and reaches the margin).
    """
    rows = []
    for kind, first, second in _compared(same, other):
        more, less = ([[name] for name in group] for group in (first, second))
        result = verdict.compare_arms(more, less, part="train")
        found = result["low"] * result["high"] > 0
        reaches = max(abs(result["low"]), abs(result["high"])) >= CLAIMS["margin"]
        rows.append((kind, result["low"], result["high"], found and reaches))
    return pd.DataFrame(rows, columns=["kind", "low", "high", "found"])


def try_rule_for_ratios(same, other):
    """Compare the gaps of groups of three trainings by the rule for ratios.

    same, other and what is returned: as for `try_rule_for_differences`.
    """
    values = {name: arms.training_score(name, "gap") for name in (*same, *other)}
    rows = []
    for kind, first, second in _compared(same, other):
        ratios = [values[one] / values[two] for one, two in zip(first, second, strict=True)]
        either = [
            verdict.judge_ratios(each, matters=1.2) for each in (ratios, 1 / np.array(ratios))
        ]
        found = any(outcome["answer"] == verdict.Verdict.REPLICATED for outcome in either)
        rows.append((kind, either[0]["low"], either[0]["high"], found))
    return pd.DataFrame(rows, columns=["kind", "low", "high", "found"])
