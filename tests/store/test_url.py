"""URLs of stores on Redis: what they may say, and what is told of those that say something else."""

import pytest

from stemflow.store.base import StoreError
from stemflow.store.open import open_store
from stemflow.testing.contract_world import ManualClock


@pytest.mark.parametrize("parameter", ["partitions=3", "no_such_thing=1"])
def test_a_parameter_that_nothing_reads_is_refused(parameter: str) -> None:
    with pytest.raises(StoreError, match=parameter.partition("=")[0]):
        open_store(f"redis://localhost:6379/0?{parameter}", ManualClock())


def test_a_value_that_cannot_be_read_is_refused_without_telling_the_password() -> None:
    with pytest.raises(StoreError, match="socket_timeout") as caught:
        open_store("redis://me:secret@localhost:6379/0?socket_timeout=soon", ManualClock())
    assert "secret" not in str(caught.value)


def test_a_prefix_and_parameters_of_the_client_are_taken() -> None:
    store = open_store("redis://localhost:6379/0?prefix=shop&client_name=me", ManualClock())
    assert store.url == "redis://localhost:6379/0?prefix=shop&client_name=me"
