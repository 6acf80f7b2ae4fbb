"""Build a directory of any size in little memory: rows in columns, sorted on disk, packed at once.

It needs numpy, and pyarrow for a Parquet file: the extra ``audit``. A router that never builds a
directory itself does without.
"""
