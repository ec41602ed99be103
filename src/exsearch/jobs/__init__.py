"""A job is the whole work of one command in one folder: training, an evaluation, a set of rollouts.

A job settles its inputs once, writes down what determines it, so that the same command goes on
after a stop and another one is refused, and then runs. It prints nothing.
"""
