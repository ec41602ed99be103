"""Tracking sends a run's figures to where people keep theirs, from a process of its own.

    journal (metrics.jsonl)  →  follow  →  points  →  tracker

Training writes its journal and knows nothing of this: a tracker that fails, hangs or is killed
stops no run. Only figures and settings leave the machine; no question, passage or place.
"""
