"""Metrics, comparison, plots and the report."""
