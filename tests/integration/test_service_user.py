"""Letting one user walk through a folder, and nobody else."""

import os
from pathlib import Path

import pytest

from mockpay.postgres.service_user import _MASK, _NO_ID, _USER, _WALK, _grant_walk, _read_entries

SOMEBODY = 65_534 if os.geteuid() != 65_534 else 65_533


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="the grants are made on Linux only; elsewhere they are refused")
def test_a_grant_is_made_again_where_a_chmod_took_it_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for _ in range(2):
        _grant_walk(tmp_path, SOMEBODY)
        entries = _read_entries(tmp_path, tmp_path.stat().st_mode)
        assert entries[_USER, SOMEBODY] & entries[_MASK, _NO_ID] & _WALK
        assert tmp_path.stat().st_mode & 0o007 == 0
        tmp_path.chmod(0o700)  # which closes the mask of the list
