"""Scores per view, accuracies, comparisons, records and tables."""
