"""Showing is rendering what a run or a model left behind, as plain text for a person.

Texts from corpora and models are untrusted: each is put on one line, so that it can't pass for
another. It computes no figures but sums, and does not print.
"""
