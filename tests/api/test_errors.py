import subprocess
import sys

from berth_api import errors


def _tree(kind: type[errors.BerthError]) -> list[type[errors.BerthError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


def test_every_type_is_said_by_one_class_alone() -> None:
    types = [kind.type for kind in _tree(errors.BerthError) if kind.__module__ == errors.__name__]
    assert len(types) > 20
    assert len(types) == len(set(types))


def test_a_problem_carries_its_members_beside_type_status_and_detail() -> None:
    problem = errors.TurnInFlight("a turn runs", retry_after=2.5).problem()
    assert problem == {"type": "turn_in_flight", "status": 409, "detail": "a turn runs", "retry_after": 2.5}


def test_importing_the_contract_loads_no_heavy_library() -> None:
    code = (
        "import sys, berth_api.wire, berth_api.admin, berth_api.public, berth_api.errors, berth_api.heads\n"
        "print([m for m in ('torch', 'pydantic', 'aiohttp', 'redis', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
