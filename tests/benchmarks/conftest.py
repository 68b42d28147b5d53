"""Hypothesis without a deadline, because one example may take long on a busy machine."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
