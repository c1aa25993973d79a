"""Dense list columns of Parquet read page by page with numpy, where every row has one length.

pyarrow decodes a level for each value of a list, which costs five times what the values cost.
Where all rows have the planned length and nothing is null, the levels repeat, and one comparison
of bytes proves it. Whatever is not exactly so raises `NotDenseError`: pyarrow then reads it.

Parquet format: https://github.com/apache/parquet-format (Encodings.md, parquet.thrift).
"""

from __future__ import annotations

from batchinfer.pages.dense import DenseColumn, NotDenseError, dense_columns

__all__ = ["DenseColumn", "NotDenseError", "dense_columns"]
