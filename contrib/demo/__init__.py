"""The demonstration: ``make demo`` runs ``run.py``."""
