"""Sum up the answers of a listening test as ITU-R BS.1534-3 does: who is excluded, means, and confidence intervals."""

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddcm.errors import UserError, describe_error, to_one_line
from ddcm.evaluation.blind_page import REFERENCE
from ddcm.evaluation.evaluate_files import mean_with_interval

LEAST_OF_REFERENCE, MOST_MISSES = 90.0, 0.15
"""Post-screening of BS.1534-3: who rates the hidden reference below 90 in more than 15 % of the trials is excluded."""
COLUMNS = ("session_uuid", "trial_id", "rating_stimulus", "rating_score")


@dataclass(frozen=True)
class Answer:
    listener: str
    trial: str
    stimulus: str
    score: float


@dataclass(frozen=True)
class Rating:
    """Of one sound, over listeners."""

    stimulus: str
    mean: float
    half_width: float  # Of the 95 % confidence interval; NaN with one listener.
    listeners: int

    def to_row(self) -> dict[str, str | float]:
        return {"sound": self.stimulus, "mean": self.mean, "ci95": self.half_width, "listeners": self.listeners}


def read_answers(paths: Sequence[Path]) -> list[Answer]:
    """Answers of the page of ``ddcm compare --blind``, or of webMUSHRA. A listener is the column of that name, or the
    session. Raises UserError: a file that cannot be read or lacks a column, a score outside [0, 100], two scores of one
    sound in one trial."""
    answers: dict[tuple[str, str, str], Answer] = {}
    for path in paths:
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: not readable as answers ({describe_error(error)})") from error
        if missing := [name for name in COLUMNS if not rows or name not in rows[0]]:
            raise UserError(f"{path}: no column {missing[0]}: these are not the answers of a listening test")
        for line, row in enumerate(rows, start=2):
            answer = _read_row(path, line, row)
            key = answer.listener, answer.trial, answer.stimulus
            if key in answers:
                raise UserError(f"{path}, line {line}: {' '.join(key)} is rated twice; give each session once")
            answers[key] = answer
    return [*answers.values()]


def _read_row(path: Path, line: int, row: dict[str, str | None]) -> Answer:
    try:
        score = float(row["rating_score"] or "")
    except ValueError:
        score = math.nan
    if not 0 <= score <= 100:
        raise UserError(f"{path}, line {line}: a score must be in [0, 100], not {row['rating_score']!r}")
    listener = row.get("listener") or row["session_uuid"] or ""
    return Answer(listener, row["trial_id"] or "", row["rating_stimulus"] or "", score)


def find_excluded(answers: Sequence[Answer]) -> dict[str, str]:
    """Listener -> why they are excluded."""
    references: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        references[answer.listener] += [answer.score] if answer.stimulus == REFERENCE else []
    reasons = {}
    for listener, scores in references.items():
        misses = sum(score < LEAST_OF_REFERENCE for score in scores)
        if not scores:
            reasons[listener] = "did not rate the hidden reference"
        elif misses > MOST_MISSES * len(scores):
            reasons[listener] = f"rated the hidden reference below {LEAST_OF_REFERENCE:g} in {misses} of {len(scores)}"
    return reasons


def sum_up(answers: Sequence[Answer]) -> list[Rating]:
    """A rating for each sound, best first. The scores of a listener in several trials are averaged first: they are not
    independent. The interval is Student's t over listeners."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        scores[answer.stimulus][answer.listener].append(answer.score)
    ratings = []
    for stimulus, by_listener in scores.items():
        means = [statistics.fmean(each) for each in by_listener.values()]
        ratings.append(Rating(to_one_line(stimulus), *mean_with_interval(means), len(means)))
    return sorted(ratings, key=lambda rating: -rating.mean)
