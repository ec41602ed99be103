"""A face makes one protocol's replies of a question's log, and of nothing else.

Each is a module of its own that knows no other face.
"""
