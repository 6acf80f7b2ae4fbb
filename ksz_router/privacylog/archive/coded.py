"""Columns of names as dictionaries: each name once, and a number a row. Pure.

What repeats a hundred times is held in a tenth of the memory so, and moved as fast as numbers.
"""

from collections.abc import Sequence

import pyarrow as pa


def coded(table: pa.Table) -> pa.Table:
    """Return a table with its columns of text as dictionaries; what is one already stays."""
    for at, field in enumerate(table.schema):
        if field.type == pa.string():
            table = table.set_column(at, field.name, table[at].dictionary_encode())
    return table


def plain(table: pa.Table) -> pa.Table:
    """Return a table with its columns of text as texts."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table[at].cast(field.type.value_type))
    return table


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return coded tables one behind the other, each column in one piece."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
