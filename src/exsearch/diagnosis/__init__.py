"""A diagnosis says why trajectories are as good as they are: where answers are lost, and how often.

It reads saved trajectories and, where an index is given, searches for what they missed. It asks no
model, and changes nothing.

Glossary:
    part   The trajectories of one file: an evaluation, a round's samples, or a round's dev answers.
    need   A fact that an answer rests on, with the passage that says it: one hop of a question.
    reach  Whether a need that a trajectory missed could have been found, and by what.
    miss   A need that is in no record of a trajectory.
"""
