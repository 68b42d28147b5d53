"""What a model answers, where its attention goes, and whether it follows the image or the text."""

from keygap.bias.balance import Balance, balance_point
from keygap.bias.condition import Condition, Probe, Samples, Unfit, Variant
from keygap.bias.probes import PROBES
from keygap.bias.table import BiasTable, read_bias
from keygap.bias.text_preference import TextPreference, tpr

__all__ = [
    "PROBES",
    "Balance",
    "BiasTable",
    "Condition",
    "Probe",
    "Samples",
    "TextPreference",
    "Unfit",
    "Variant",
    "balance_point",
    "read_bias",
    "tpr",
]
