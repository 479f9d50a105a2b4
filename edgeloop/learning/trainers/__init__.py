"""Classifiers that are fitted on cached features in seconds: those that nodes run, and those to compare them with."""
