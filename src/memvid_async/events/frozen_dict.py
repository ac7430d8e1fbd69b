"""A dict that cannot be changed."""

from __future__ import annotations

from typing import Any, NoReturn


class FrozenDict(dict[str, Any]):
    """A recorded map, which nobody can change.

    It compares, prints, pickles and becomes JSON as any dict does. Lists and maps inside it are
    copies of the caller's.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Refuse to change what is recorded."""
        raise TypeError("what is recorded cannot be changed; change a copy, dict(…)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)
