"""Retrievers at search servers: what a server searches is the server's own; nothing is ranked here.

A server is filled once (`filling`) and searched often (`retriever`); each kind of server is a
`Collection` of its own module, and loads its client's package when it is used.

Glossary:
    collection  The table, index or collection of a server that holds one corpus.
    facts       What a collection says of itself: how it was filled, and with what once it is whole.
"""
