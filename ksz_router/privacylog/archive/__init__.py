"""The sealed log: Parquet segments, what is derived from them, and the questions put to them.

Everything here is the audit side: it needs the extra ``audit`` (pyarrow, duckdb, numpy).
"""
