"""From an object of the API server to the resource it is."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from berth_api.crd import InferenceFleet, StreamingSession
from berth_operator.kube.store import Body

R = TypeVar("R", InferenceFleet, StreamingSession)


def read(type_: type[R], body: Body) -> R:
    """Return the resource. A status that makes no sense, such as a newer operator's, is as if there were none.

    Raises ValidationError where what is wanted makes no sense.
    """
    try:
        return type_.model_validate(body)
    except ValidationError as error:
        if any(each["loc"][:1] != ("status",) for each in error.errors()):
            raise
    return type_.model_validate({**body, "status": None})


def explain(error: ValidationError) -> str:
    """Return the first of its complaints, by the name of the field."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
