"""Faults made on purpose on the machine at hand: whether what this program promises holds here, in two minutes.

``checks`` says what a check is, ``scene`` makes a small run that can be killed and starved, ``faults`` and ``figures`` hold
the checks, ``trial`` has them done.
"""
