"""Ablations: arms that differ in declared keys, compared pair by pair and judged with honest statistics."""
