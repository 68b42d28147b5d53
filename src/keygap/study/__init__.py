"""Run a complete study from an experiment file: extract, measure, project, answer, report."""
