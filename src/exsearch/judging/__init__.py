"""Judging is reading by persons: what they say of searches, passages, records and answers.

Judges see neither who made what they judge nor what a metric says of it. It asks no model. What the
words of a judgement mean stands in `docs/judging.md`.

Glossary:
    item       One thing to judge, whole: a judge needs nothing else to decide.
    use        Where an item stands in a trajectory; one item may have many uses.
    judgement  What one judge said of one item.
    study      The items of some trajectories, in a random order, with their judgements.
"""
