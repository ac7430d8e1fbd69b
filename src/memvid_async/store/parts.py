"""How a store offers the methods of the parts it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")
PartT = TypeVar("PartT")


class PartMethod(Generic[PartT, P, R]):
    """A part's method, offered as a method of the object that holds the part.

    For example ``put = PartMethod("_frames", Frames.put)``. On the holder's class it is the part's
    own function, with its signature and docstring.
    """

    def __init__(self, part: str, method: Callable[Concatenate[PartT, P], R]) -> None:
        self._part = part
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, holder: None, owner: type) -> Callable[Concatenate[PartT, P], R]: ...
    @overload
    def __get__(self, holder: object, owner: type | None = None) -> Callable[P, R]: ...
    def __get__(self, holder: object | None, owner: type | None = None) -> Callable[..., Any]:
        if holder is None:
            return self._method
        return self._method.__get__(getattr(holder, self._part))  # type: ignore[no-any-return]
