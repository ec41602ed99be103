"""The agent turns questions into trajectories: it thinks, searches, records, and answers.

It neither weighs trajectories nor trains on them.
"""
