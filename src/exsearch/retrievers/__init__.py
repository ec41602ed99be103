"""A retriever finds the passages for a query; this package has those that need no model.

It does not read corpora from files (`data/`) and does not decide what to search for (`agent/`).
"""
