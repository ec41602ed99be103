"""The agent turns questions into trajectories: it thinks, searches, records, and answers."""
