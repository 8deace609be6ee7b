"""Errors from a user's file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.store.labels import load_error_labels

SPACE = NasBench201()
A, B = (SPACE.encode(arch) for arch in SPACE.sample(2, seed=4))


def test_csv_and_parquet_read_alike(tmp_path):
    csv, parquet = tmp_path / "a.csv", tmp_path / "a.parquet"
    csv.write_text(f"arch,accuracy_pct\n{A},90\n{B},\n{A},92\n")
    pq.write_table(pa.table({"arch": [A, B, A], "error_pct": [10.0, None, 8.0]}), parquet)
    for path in (csv, parquet):
        genotypes, error = load_error_labels(path, SPACE)
        assert genotypes.tolist() == [list(SPACE.decode(A).genotype)]
        np.testing.assert_allclose(error, [9.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arch,top1\n{A},3\n", "error_pct"),
        ("arch,error_pct\n{A},130\n", "row 1.*130"),
        ("arch,error_pct\n{A},3\nnonsense,3\n", "row 2"),
        ("arch,error_pct\n{A},much\n", "percentage"),
        ("", "cannot read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text.format(A=A))
    with pytest.raises(DataError, match=message):
        load_error_labels(path, SPACE)
    with pytest.raises(DataError, match="cannot read"):
        load_error_labels(tmp_path / "missing.parquet", SPACE)
