"""``kg.align.search``: the smallest change that makes a model follow a wrong hint less.

Maps are fitted on one set of samples, a candidate is chosen on a second and judged on a third; no
two of them share an image. Every candidate is kept in a file of its own as soon as it is measured,
so an interrupted search continues with the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from keygap import defaults
from keygap.align.baselines.settings import number
from keygap.align.causes.acting import Acting, named_reading, refuse_unsuited
from keygap.align.causes.judging import Judge
from keygap.align.causes.keeping import (
    as_plain,
    claim,
    digest_of,
    point_file,
    read_point,
    write_point,
)
from keygap.align.causes.points import LAYER_SETS, READING, Point, layer_sets
from keygap.align.causes.tables import SAMPLE_COLUMNS
from keygap.align.remedy.candidates import BIASES, KINDS, STRENGTHS, Candidates
from keygap.align.remedy.change import FACTS, Change
from keygap.align.remedy.comparing import CHOOSING, SECOND, TEST, Answers, Rule, trial
from keygap.align.remedy.cost import cost_of
from keygap.align.remedy.result import Cost, Remedy
from keygap.align.vectors import facts_of_model
from keygap.arguments import seed_of, whole
from keygap.benchmarks import Benchmark, SampleSet
from keygap.bias.probes.prompts import TWO_HINTS, checked_phrasings
from keygap.capture.batches import labelled
from keygap.errors import UserError
from keygap.models.vlm import VLM
from keygap.selfcheck.batches import read_size
from keygap.store.run import REMEDY_POINTS
from keygap.tokens import known_roles

logger = logging.getLogger("keygap")

MOST_LOSS = 0.02
COST = "cost.json"
_NAMES = ("name", "split", "data", "language")  # of a benchmark


def search(
    vlm: VLM,
    source: Benchmark,
    out: str | Path,
    *,
    second: Benchmark | None = None,
    maps: Sequence[str] = KINDS,
    sites: Sequence[str] = ("k_proj",),
    layers: Sequence[str] = LAYER_SETS,
    strengths: Sequence[float] = STRENGTHS,
    biases: Sequence[float] = BIASES,
    most_loss: float = MOST_LOSS,
    samples: int = defaults.SAMPLES,
    fit_samples: int = defaults.FIT_SAMPLES,
    subjects: Sequence[str] | None = None,
    phrasings: Sequence[str] = TWO_HINTS,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    batch_size: int = defaults.CAUSES_BATCH_SIZE,
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
    seed: int = 0,
) -> Remedy:
    """Search for the change that lowers following of a wrong hint most and keeps accuracy.

    Every map at every set of layers and strength, and every attention bias, is measured on the
    choosing set. Of the candidates that lower following there (the interval of the paired
    difference, all phrasings together, lies below 0) and whose accuracy without a hint falls by an
    estimated ``most_loss`` at most, the one that lowers following most is chosen. It is a remedy if
    the test set confirms it: the interval lies below 0 again, and accuracy is not shown to fall by
    more than ``most_loss``. To find none is a result, and not an error.

    Args:
        vlm: the model, without interventions.
        source: a benchmark whose questions have options or a closed set of answers.
        out: the folder for the results. If it holds a part of the same search, that is kept.
        second: another benchmark, on whose samples the chosen candidate is judged too. Its images
            should be others than those of ``source``.
        maps: kinds of map, see ``Candidates``.
        sites: where maps act.
        layers: names of sets of layers: all, early, middle, late (thirds of the layers that attend)
            and reading (the layers that read the image).
        strengths: of maps, on both sides of 0.
        biases: nats that are added to the attention logits of image keys, without a map.
        most_loss: of accuracy without a hint, as a share of samples.
        samples: how many are in the choosing set, in the test set, and from ``second``.
        fit_samples: how many others maps are fitted on.
        subjects: of the samples of ``source``; None means all.
        phrasings: of the wrong hint, each with ``{answer}`` once.
        text_roles: what counts as text when maps are fitted.
        batch_size: samples in one forward pass.
        n_bootstraps: resamplings of whole samples behind the intervals of means.
        seed: of the choice of samples and of all draws.

    Returns:
        What was found, which is saved in the folder too.

    Raises:
        UserError: an argument that is not possible, a model that is steered already or whose image
            keys are in layers of their own, too few samples, no candidate that can be measured, or
            a folder with another search.
    """
    candidates = Candidates(
        tuple(maps), tuple(sites), tuple(layers), tuple(strengths), tuple(biases)
    )
    loss = number(most_loss, "most_loss", 0.0, 1.0)
    rule = Rule(loss, whole(n_bootstraps, "n_bootstraps", 1), seed_of(seed))
    texts, roles = checked_phrasings(phrasings), known_roles(text_roles)
    refuse_unsuited(vlm, "search")
    halves = _Samples.of(source, second, samples, fit_samples, subjects, rule.seed)
    size = read_size(vlm, batch_size)
    return _Search(vlm, halves, Path(out), candidates, rule, texts, roles, size).run()


@dataclass(frozen=True)
class _Samples:
    """Samples that share no image.

    Attributes:
        fitting: those that maps are fitted on.
        judged: the samples of each stage.
    """

    fitting: SampleSet
    judged: dict[str, SampleSet]

    @classmethod
    def of(
        cls,
        source: Benchmark,
        second: Benchmark | None,
        samples: int,
        fit_samples: int,
        subjects: Sequence[str] | None,
        seed: int,
    ) -> _Samples:
        """Choose them; arguments and errors as ``search``."""
        each, fits = whole(samples, "samples", 2), whole(fit_samples, "fit_samples", 2)
        if second is not None and all(
            getattr(source, name) == getattr(second, name) for name in _NAMES
        ):
            raise UserError(f"the second benchmark is {source.name} again: name another")
        chosen = source.choose(2 * each + fits, seed, subjects)
        choosing, rest = chosen.apart(each)
        test, rest = rest.apart(each)
        fitting = rest[:fits]
        if min(map(len, (choosing, test, fitting))) < 2:
            raise UserError(
                f"{len(chosen)} samples of {source.name} give {len(choosing)} to choose on, "
                f"{len(test)} to test on and {len(fitting)} to fit maps on, each with images of "
                "its own: ask for fewer samples"
            )
        judged = {CHOOSING: choosing, TEST: test}
        if second is not None:
            judged[SECOND] = second.choose(each, seed)
        return cls(fitting, judged)


@dataclass
class _Search:
    """One search in one folder; arguments as ``search``, checked."""

    vlm: VLM
    samples: _Samples
    out: Path
    candidates: Candidates
    rule: Rule
    phrasings: list[str]
    roles: list[str]
    batch_size: int

    def __post_init__(self) -> None:
        self.folder = self.out / REMEDY_POINTS
        self.notes: list[str] = []
        self.facts = facts_of_model(self.vlm, self.samples.fitting)
        self.acting = Acting(
            self.vlm, self.samples.fitting, self.roles, self.batch_size, self.rule.seed
        )

    def run(self) -> Remedy:
        """Measure what is not there yet, choose, and test."""
        claim(self.folder, self.identity, "a search")
        self.judges = {stage: self._judge(own) for stage, own in self.samples.judged.items()}
        self.acting.sets = self._sets()
        points = self.candidates.points(self.acting.sets)
        self.acting.plan(points)
        if not points:
            sets = ", ".join(self.candidates.layers)
            raise UserError(
                f"{self.vlm.name} has no layers in {sets}: name another set, such as all"
            )
        names = {stage: own.name for stage, own in self.samples.judged.items()}
        frame = trial(points, self._measure, names, self.vlm.name, self.rule)
        if frame.empty:
            raise UserError(f"no candidate can be measured; the first: {self.notes[-len(points)]}")
        by_id = {point.id: point for point in points}
        found = Remedy(frame, self.rule, settings=self._settings())
        if found.found:
            change = self._change(by_id[str(found.chosen)])
            found = replace(found, change=change, cost=self._cost(change))
        found.save(self.out)
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What decides every number, as plain values."""
        return {
            **self.facts,
            "second": None if SECOND not in self.samples.judged else self._second(),
            **{name: list(values) for name, values in asdict(self.candidates).items()},
            "most_loss": self.rule.most_loss,
            "n_bootstraps": self.rule.n_bootstraps,
            "phrasings": self.phrasings,
            "text_roles": self.roles,
            "fit_ids": digest_of([each.id for each in self.samples.fitting.entries]),
            **{
                f"{stage}_ids": digest_of([each.id for each in own.entries])
                for stage, own in self.samples.judged.items()
            },
        }

    def _second(self) -> dict[str, Any]:
        benchmark = self.samples.judged[SECOND].benchmark
        return {name: getattr(benchmark, name) for name in _NAMES}

    def _sets(self) -> dict[str, list[int]]:
        """The layers of each set."""
        reading = []
        if READING in self.candidates.layers:
            reading = named_reading(
                self.vlm, self.samples.fitting, self.out, self.folder, self.batch_size
            )
            if not reading:
                self._note("no layer reads the image by itself, so that set is left out")
        attending = [each.index for each in self.vlm.layers if each.calls_function]
        return layer_sets(attending, reading)

    def _judge(self, judged: SampleSet) -> Judge:
        """Answers alone are needed: no layers to measure the gap or attention at."""
        return Judge(
            self.vlm,
            judged,
            self.phrasings,
            site="k_proj",
            gap_layers=(),
            state_layers=(),
            reading=(),
            roles=self.roles,
            batch_size=self.batch_size,
            n_bootstraps=self.rule.n_bootstraps,
        )

    def _measure(self, stage: str, point: Point) -> Answers | None:
        """What the model answers under a point; None, with a note, where it cannot be measured."""
        file = point_file(self.folder / stage, point)
        if not file.is_file():
            try:
                judged = self.judges[stage].measure(self.acting.steered(point))
                change = None if point.kind == "none" else self._change(point)
            except UserError as reason:  # the other candidates stand without it
                if point.kind == "none" or stage != CHOOSING:
                    raise
                self._note(f"{point.id} is not measured: {reason}")
                return None
            kept = {name: value for name, value in as_plain(judged).items() if name != "rows"}
            kept["n_layers"] = 0 if change is None else len(change.layers)
            kept["parameters"] = 0 if change is None else change.parameters
            write_point(file, kept)
        kept = read_point(file)
        names = [name for name in SAMPLE_COLUMNS if name != "point"]
        table = pd.DataFrame(kept["samples"], columns=names)
        return Answers(table, int(kept["n_layers"]), int(kept["parameters"]))

    def _change(self, point: Point) -> Change:
        """What a point does to the model, apart from the search."""
        layers = self.acting.layers_of(point)
        fitted = None if point.kind == "baseline" else self.acting.map_of(point).at(layers)
        facts = {name: self.facts[name] for name in FACTS}
        return Change(point.name, layers, point.strength, fitted, facts)

    def _cost(self, change: Change) -> Cost:
        """Measured once; a search that continues keeps it."""
        file = self.folder / COST
        if not file.is_file():
            _, batch, _ = labelled(self.vlm, self.judges[TEST].batches[0].samples)
            assert batch is not None  # its samples were judged
            found = cost_of(self.vlm, batch, change.intervention(self.vlm), change.parameters)
            write_point(file, asdict(found))
        return Cost(**read_point(file))

    def _settings(self) -> dict[str, Any]:
        return {
            **self.identity,
            "layer_sets": {name: list(own) for name, own in self.acting.sets.items()},
            "left_out": {stage: dict(judge.left_out) for stage, judge in self.judges.items()},
            "notes": self.notes,
        }

    def _note(self, text: str) -> None:
        self.notes.append(text)
        logger.info("%s: %s", self.vlm.name, text)
