"""A backend is chosen by name, and one that is not there says so."""

from __future__ import annotations

import pytest

from berth_kernels.interface import KernelError
from berth_kernels.select import select


@pytest.mark.parametrize("name", ["reference", "auto"])
def test_what_is_present_is_chosen(name):
    assert select(name).name == "reference"


@pytest.mark.parametrize("name", ["native", "flashinfer"])
def test_what_is_not_built_is_refused(name):
    with pytest.raises(KernelError, match=f"'{name}' is not built in this version"):
        select(name)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(KernelError, match="'fast': choose one of reference, native, flashinfer, auto"):
        select("fast")
