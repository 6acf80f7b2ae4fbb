"""The open core of a crossroads bank: check, record and route messages on persons."""

__version__ = "0.1.0"
