"""Evaluation says how good answers and searches were, and how sure that is.

It does not produce answers or train on scores.
"""
