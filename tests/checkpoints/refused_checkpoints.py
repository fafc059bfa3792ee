"""What the tests of checkpoints that are refused share."""

import pytest

from mobiledeploy.checkpoints.identify import inspect_checkpoint
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.build import create_on_meta


def refused_by_inspection(path, message) -> WeightsError:
    """Expect identifying a checkpoint to fail, with a remedy; return the error."""
    with pytest.raises(WeightsError, match=message) as error:
        inspect_checkpoint(path, create_on_meta)
    assert error.value.exit_code == 3
    assert error.value.remedy
    return error.value
