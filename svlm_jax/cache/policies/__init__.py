"""Memory policies by name: each is a file of this folder, and one line here."""

import dataclasses
from typing import Any

from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.cache.policies.fifo import Fifo
from svlm_jax.cache.policies.full import Full
from svlm_jax.cache.policies.last_frames import LastFrames
from svlm_jax.cache.policies.top_k import TopK
from svlm_jax.cache.policies.vsb import Bucketing
from svlm_jax.cache.policies.vsb_par import BucketingWithPages
from svlm_jax.cache.policies.window import Window
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.host.schema import Choice, Flag, Kind, Nullable, Number, Record, Text, Whole

POLICIES: dict[str, type[MemoryPolicy]] = {}
DEFAULT = BucketingWithPages.name


def register(policy: type[MemoryPolicy]) -> None:
    """Adds a policy, or replaces the one of its name."""
    POLICIES[policy.name] = policy


for _policy in (Full, Window, Fifo, TopK, LastFrames, Bucketing, BucketingWithPages):
    register(_policy)


def options(policy: str) -> dict[str, dataclasses.Field[Any]]:
    """The options of a policy by name; ConfigError lists the policies when there is none of that name."""
    if policy not in POLICIES:
        raise ConfigError(f"memory policy={policy!r}: expected one of {', '.join(POLICIES)}")
    return {field.name: field for field in dataclasses.fields(POLICIES[policy]) if field.init}


def memory_policy(policy: str = DEFAULT, **given: Any) -> MemoryPolicy:
    """A policy with the options that were given for it (None = not given); ConfigError for one that it does not look at."""
    own = options(policy)
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in own:
            users = [other for other in POLICIES if name in options(other)]
            expected = f"expected {', '.join(users)}" if users else f"it has {', '.join(own)}"
            raise ConfigError(f"memory {name}={value} with policy={policy}, which ignores it: {expected}")
    return POLICIES[policy](**given)


def to_json(policy: MemoryPolicy) -> dict[str, Any]:
    """The policy's name and its options, as `from_json` reads them."""
    return {"policy": policy.name, **{name: getattr(policy, name) for name in options(policy.name)}}


def from_json(data: Any, where: str) -> MemoryPolicy:
    """What `to_json` wrote, from a file that `where` names; CheckpointError when it does not hold that."""
    name = Choice(tuple(POLICIES))
    policy = Record(data, where, CheckpointError).get("policy", name)
    kinds = {option: _kind(field.default) for option, field in options(policy).items()}
    given = Record(data, where, CheckpointError).fields({"policy": name, **kinds})
    try:
        return POLICIES[policy](**{option: value for option, value in given.items() if option != "policy"})
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _kind(default: Any) -> Kind[Any]:
    """What an option may be in a file: what its default is, or a number where that is None."""
    if default is None:
        return Nullable(Number(most=1e8))
    if isinstance(default, bool):
        return Flag()
    if isinstance(default, str):
        return Text()
    return Whole(least=0, most=2**24) if isinstance(default, int) else Number(most=1e8)
