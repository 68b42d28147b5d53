"""keygap: does a vision-language model keep image and text in the same attention key space?

This module is the public API. Its objects are imported on first use, because they need torch and
transformers, and the command line should answer without loading either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygap.lazy import lazy

__version__ = "0.1.0"

if TYPE_CHECKING:  # for type checkers and editors; tests compare it with the table below
    from keygap import align as align
    from keygap import benchmarks as benchmarks
    from keygap import bias as bias
    from keygap import choices as choices
    from keygap import gap as gap
    from keygap.align.causes.running import causes as causes
    from keygap.benchmarks import benchmark as benchmark
    from keygap.bias.answers import Answers as Answers
    from keygap.bias.answers import answer as answer
    from keygap.bias.attention import measure_attention as measure_attention
    from keygap.bias.attention_map import AttentionMap as AttentionMap
    from keygap.bias.attention_map import attention_map as attention_map
    from keygap.bias.attention_table import AttentionTable as AttentionTable
    from keygap.bias.indices import attention_indices as attention_indices
    from keygap.bias.link import link as link
    from keygap.bias.link_table import LinkTable as LinkTable
    from keygap.bias.probe import probe as probe
    from keygap.bias.reading import ReadingTable as ReadingTable
    from keygap.bias.reading import reading_layers as reading_layers
    from keygap.bias.table import BiasTable as BiasTable
    from keygap.choices.running import specifications as specifications
    from keygap.choices.tables import ChoicesTable as ChoicesTable
    from keygap.engines.extract import extract as extract
    from keygap.errors import UserError as UserError
    from keygap.measurement.measure import measure as measure
    from keygap.measurement.tables import GapTable as GapTable
    from keygap.models import VLM as VLM
    from keygap.models.load import load as load
    from keygap.models.masking import mask as mask
    from keygap.projection.project import Projection as Projection
    from keygap.projection.project import project as project
    from keygap.reporting.page import report as report
    from keygap.store import Store as Store

# Public name -> "module:object", or a module.
_PUBLIC = {
    "load": "keygap.models.load:load",
    "benchmark": "keygap.benchmarks:benchmark",
    "extract": "keygap.engines.extract:extract",
    "measure": "keygap.measurement.measure:measure",
    "project": "keygap.projection.project:project",
    "answer": "keygap.bias.answers:answer",
    "probe": "keygap.bias.probe:probe",
    "measure_attention": "keygap.bias.attention:measure_attention",
    "attention_indices": "keygap.bias.indices:attention_indices",
    "attention_map": "keygap.bias.attention_map:attention_map",
    "link": "keygap.bias.link:link",
    "causes": "keygap.align.causes.running:causes",
    "specifications": "keygap.choices.running:specifications",
    "reading_layers": "keygap.bias.reading:reading_layers",
    "report": "keygap.reporting.page:report",
    "mask": "keygap.models.masking:mask",
    "gap": "keygap.gap",
    "align": "keygap.align",
    "benchmarks": "keygap.benchmarks",
    "bias": "keygap.bias",
    "choices": "keygap.choices",
    "VLM": "keygap.models:VLM",
    "Store": "keygap.store:Store",
    "GapTable": "keygap.measurement.tables:GapTable",
    "Projection": "keygap.projection.project:Projection",
    "BiasTable": "keygap.bias.table:BiasTable",
    "LinkTable": "keygap.bias.link_table:LinkTable",
    "ChoicesTable": "keygap.choices.tables:ChoicesTable",
    "ReadingTable": "keygap.bias.reading:ReadingTable",
    "Answers": "keygap.bias.answers:Answers",
    "AttentionMap": "keygap.bias.attention_map:AttentionMap",
    "AttentionTable": "keygap.bias.attention_table:AttentionTable",
    "UserError": "keygap.errors:UserError",
}

__all__ = list(_PUBLIC)


__getattr__, __dir__ = lazy(__name__, _PUBLIC, ("__version__",))
