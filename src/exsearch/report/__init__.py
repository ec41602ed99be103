"""A report is one page of what runs and evaluations say, with every question behind its numbers.

It opens from a disk and asks nobody for anything. It answers and judges nothing anew.

Glossary:
    sheet  The questions of one evaluation, or of one stage of a run, and what was answered.
    row    A line of the main table: the sheets of one method or model, one a part.
    part   A question file; a row's sheets are of different ones.
"""
